import type { InstanceRegistration } from "../../core/protocol/membership.ts";

/** What instances must have in common for requests to move between them. */
export interface MigrationCompatibility {
  /** As in `--migration-backend`. */
  readonly backend: string;
  /** Tokens in a block. */
  readonly blockSize: number;
}

/** Why an instance takes no part in the migration of a service, naming both ends; null: it does. */
export function incompatibilityOf(
  { migration, migrationFailure, blockSize }: InstanceRegistration,
  terms: MigrationCompatibility,
): string | null {
  if (migrationFailure !== undefined) return migrationFailure;
  if (migration === undefined) {
    return `it has no migration, and this service has ${terms.backend} (--enable-migration)`;
  }
  if (migration.backend !== terms.backend) {
    return `its migration backend is ${migration.backend}, and this service's ${terms.backend} ` +
      "(--migration-backend)";
  }
  if (blockSize !== terms.blockSize) {
    return `its blocks have ${blockSize} tokens, and this service's ${terms.blockSize} ` +
      "(--block-size)";
  }
  return null;
}
