// Package optim updates the trained numbers: AdamW, the linear schedule with
// warm-up, and clipping by the global norm, as PyTorch and Transformers define
// them.
//
// The result is the same to the last bit on every architecture. Go may fuse a
// product and a sum into one rounding if the hardware can (arm64, amd64 v3). An
// explicit conversion forbids it, so every product that is added to something
// has one. Powers are repeated products, and only the square root, which IEEE
// 754 rounds correctly, comes from package math.
package optim
