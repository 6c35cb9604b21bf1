/* SPDX-License-Identifier: MIT
 * control.h - the two small device blocks that hold all state of a step; read by C and GLSL.
 *
 * control: written by the host before each step (bits of the words in a float32 variable).
 * amp: kept on the device between steps and saved with the training state; plain float32 numbers.
 *
 * Random numbers (Philox 4x32-10): element i of an op takes word i % 4 of counter {i / 4, use,
 * step, 0} under key {seed lo, seed hi}.
 *   uniform  (word >> 8) * 2^-24
 *   normal   Box-Muller on words (2j, 2j + 1): u1 = ((w0 >> 8) + 1) * 2^-24,
 *            u2 = (w1 >> 8) * 2^-24, r = sqrt(-2 ln u1); elements r cos(2 pi u2), r sin(2 pi u2)
 *   integer  low + ((word * (high - low)) >> 32), the product in 64 bits */
#define CONTROL_STEP 0    /* uint: the step's number, first step = 0; advances Philox */
#define CONTROL_SEED_LO 1 /* uint */
#define CONTROL_SEED_HI 2 /* uint */
#define CONTROL_LR 8      /* float: learning rate of parameter group i at CONTROL_LR + i */
#define CONTROL_WORDS 24

#define AMP_STEP 0 /* updates applied so far, t of Adam's bias correction */
#define AMP_SCALE \
    1 /* loss scale, at least 1: gradients arrive multiplied by it (and by 1 for f32) */
#define AMP_GOOD 2 /* finite steps since the scale last changed */
#define AMP_FACTOR \
    3 /* what the optimizer multiplies gradients by: clip / scale; 0 = skip this step */
#define AMP_NORM 4    /* global gradient norm of the last step, unscaled, before clipping */
#define AMP_SKIPPED 5 /* steps skipped because of a non-finite gradient */
#define AMP_GROWTH 6  /* finite steps after which the scale doubles; 0 = constant scale */
#define AMP_WORDS 8
