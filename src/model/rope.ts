/** Rotary position embedding of a model, as in transformers' `modeling_rope_utils.py`. */
export interface RopeConfig {
  readonly theta: number;
  readonly scaling: RopeScaling | null;
}

export type RopeScaling =
  | {
    /** Positions are divided by `factor`. */
    readonly type: "linear";
    readonly factor: number;
  }
  | {
    /** Llama 3.1: long wavelengths are stretched by `factor`, short ones are kept. */
    readonly type: "llama3";
    readonly factor: number;
    readonly lowFreqFactor: number;
    readonly highFreqFactor: number;
    readonly originalMaxPositions: number;
  };

/** Rotation per position in radians, float32 [headDim / 2], scaling included. */
export function ropeFrequencies(rope: RopeConfig, headDim: number): Float32Array {
  const frequencies = new Float32Array(headDim / 2);
  for (let i = 0; i < frequencies.length; i++) {
    const base = 1 / Math.fround(rope.theta ** Math.fround(2 * i / headDim));
    frequencies[i] = rope.scaling ? scaleFrequency(Math.fround(base), rope.scaling) : base;
  }
  return frequencies;
}

function scaleFrequency(frequency: number, scaling: RopeScaling): number {
  if (scaling.type === "linear") return frequency / scaling.factor;
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositions } = scaling;
  const wavelength = 2 * Math.PI / frequency;
  if (wavelength < originalMaxPositions / highFreqFactor) return frequency;
  if (wavelength > originalMaxPositions / lowFreqFactor) return frequency / factor;
  const smooth = (originalMaxPositions / wavelength - lowFreqFactor) /
    (highFreqFactor - lowFreqFactor);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

/**
 * The table that the `rope` kernels read, float32 [positions, headDim]: a row holds the cosines of
 * the headDim / 2 angles, then their sines. Angles are rounded to float32 as transformers does, so
 * that long positions agree with it.
 */
export function ropeTable(rope: RopeConfig, headDim: number, positions: number): Float32Array {
  const frequencies = ropeFrequencies(rope, headDim);
  const half = frequencies.length;
  const table = new Float32Array(positions * headDim);
  for (let position = 0; position < positions; position++) {
    const row = position * headDim;
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * frequencies[i]);
      table[row + i] = Math.cos(angle);
      table[row + half + i] = Math.sin(angle);
    }
  }
  return table;
}
