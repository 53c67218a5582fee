import { UnavailableError } from "../../core/errors.ts";
import type { MigrationId } from "../../core/protocol/migration.ts";

/** The blocks that each migration may write: the books behind `grant` and `revoke`. */
export class WriteGrants {
  readonly #numBlocks: number;
  readonly #blocks = new Map<MigrationId, Set<number>>();

  /** @param numBlocks of the pool */
  constructor(numBlocks: number) {
    this.#numBlocks = numBlocks;
  }

  /** @throws {RangeError} the pool has no such block */
  grant(migrationId: MigrationId, blocks: readonly number[]): void {
    for (const block of blocks) {
      if (block >= 0 && block < this.#numBlocks) continue;
      throw new RangeError(`block ${block} of a KV pool of ${this.#numBlocks}`);
    }
    const granted = this.#blocks.get(migrationId);
    if (!granted) this.#blocks.set(migrationId, new Set(blocks));
    else for (const block of blocks) granted.add(block);
  }

  revoke(migrationId: MigrationId): void {
    this.#blocks.delete(migrationId);
  }

  /** @throws {UnavailableError} the migration may not write one of these blocks */
  check(migrationId: MigrationId, blocks: Iterable<number>): void {
    const granted = this.#blocks.get(migrationId);
    if (!granted) {
      throw new UnavailableError(
        `migration ${migrationId} may write nothing: it is not known, or was revoked`,
      );
    }
    for (const block of blocks) {
      if (granted.has(block)) continue;
      throw new UnavailableError(`block ${block} is not granted to migration ${migrationId}`);
    }
  }
}
