/** How a kernel is launched, and the layout of `CUlaunchConfig`. */

export type Dimensions = readonly [x: number, y: number, z: number];

export interface Launch {
  /** Blocks. */
  readonly grid: Dimensions;
  /** Threads of a block. */
  readonly block: Dimensions;
  readonly stream: bigint;
  /** Dynamic shared memory of a block; more than 48 KiB needs `maxDynamicSharedBytes` first. */
  readonly sharedBytes?: number;
  /** Blocks of a cluster, from sm_90 on. */
  readonly cluster?: Dimensions;
  /**
   * The kernel may begin while the previous kernel of the stream still runs (programmatic dependent
   * launch). It waits by griddepcontrol.wait before it uses the results of that kernel.
   */
  readonly programmatic?: boolean;
  /** All blocks run at the same time, so that they can wait for each other. */
  readonly cooperative?: boolean;
}

/** `CUlaunchConfig` of cuda.h, and the `CUlaunchAttribute`s that it points to. */
export const launchLayout = {
  byteLength: 56,
  grid: 0,
  block: 12,
  sharedBytes: 24,
  stream: 32,
  attributes: 40,
  attributeCount: 48,
  attribute: { byteLength: 72, id: 0, value: 8 },
} as const;

/** `CUlaunchAttributeID` of cuda.h. */
export const launchAttributeIds = {
  cooperative: 2,
  clusterDimension: 4,
  programmaticStreamSerialization: 6,
} as const;

export const maxLaunchAttributes = 3;

/**
 * Writes a launch into a `CUlaunchConfig`, whose pointer to `attributes` is set already.
 * @param attributes room for `maxLaunchAttributes`
 */
export function encodeLaunch(launch: Launch, config: DataView, attributes: DataView): void {
  const { grid, block, stream, sharedBytes = 0, cluster, programmatic, cooperative } = launch;
  writeDimensions(config, launchLayout.grid, grid);
  writeDimensions(config, launchLayout.block, block);
  config.setUint32(launchLayout.sharedBytes, sharedBytes, true);
  config.setBigUint64(launchLayout.stream, stream, true);
  let count = 0;
  const { byteLength, id, value } = launchLayout.attribute;
  const attribute = (attributeId: number): number => {
    const start = count++ * byteLength;
    attributes.setInt32(start + id, attributeId, true);
    return start + value;
  };
  if (cluster !== undefined) {
    writeDimensions(attributes, attribute(launchAttributeIds.clusterDimension), cluster);
  }
  if (programmatic) {
    const at = attribute(launchAttributeIds.programmaticStreamSerialization);
    attributes.setInt32(at, 1, true);
  }
  if (cooperative) attributes.setInt32(attribute(launchAttributeIds.cooperative), 1, true);
  config.setUint32(launchLayout.attributeCount, count, true);
}

function writeDimensions(view: DataView, offset: number, dimensions: Dimensions): void {
  for (let i = 0; i < 3; i++) view.setUint32(offset + 4 * i, dimensions[i], true);
}
