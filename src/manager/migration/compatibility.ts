import type { InstanceRegistration } from "../../core/protocol/membership.ts";

/** What instances must have in common for requests to move between them. */
export interface MigrationCompatibility {
  /** As in `--migration-backend`. */
  readonly backend: string;
  /** Tokens in a block. */
  readonly blockSize: number;
}

/** Why an instance cannot take part in migration: its own value and the expected one; null: it can. */
export function incompatibilityOf(
  { migration, migrationFailure, blockSize }: InstanceRegistration,
  required: MigrationCompatibility,
): string | null {
  if (migrationFailure !== undefined) return migrationFailure;
  if (migration === undefined) {
    return `it was started without --enable-migration, and this service migrates by ${required.backend}`;
  }
  if (migration.backend !== required.backend) {
    return `its migration backend is ${migration.backend}, but this service's is ${required.backend} ` +
      "(--migration-backend)";
  }
  if (blockSize !== required.blockSize) {
    return `its blocks have ${blockSize} tokens, but this service's have ${required.blockSize} ` +
      "(--block-size)";
  }
  return null;
}
