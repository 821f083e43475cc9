// Package prompt holds the methods of a soft prompt: which tensors are trained,
// and how the c prompt vectors of e numbers that the encoder reads are computed
// from them.
//
// A method is a few lines that build a gorgonia graph from the trained tensors
// to P (e×c). The frozen T5 and its loss, which follow P, are one operation in
// that graph: its value is the loss, and its derivative is the gradient with
// respect to P that the same pass computed. Gorgonia derives the rest, so a new
// method needs no gradient of its own.
//
// The methods are those that Xiao et al. (Findings of EMNLP 2023) compare:
//
//	dpt    P (e×c) = A (e×b) · B (b×c): Decomposed Prompt Tuning, section 3
//	pt     P = prompt^T: prompt tuning (Lester et al. 2021)
//	respt  a shared MLP with a skip connection on every row:
//	       residual prompt tuning (Razdaibiedina et al. 2023)
//	svd    P = U·ReLU(Σ)·V with a diagonal Σ: the probe of a prompt's rank, section 2
//
// Method also describes each of them to the rest of the program: flags, sweeps
// and reports ask [Methods] and [Lookup]. To add a method, write a file that
// defines a Method, and add it to registry.
//
// Results are the same to the last bit for the same input, on every platform
// and for any number of threads: see exactBLAS.
package prompt

// Gorgonia depends on an old version of this package, which refuses to start on
// newer Go; this import pins one that asks the runtime instead.
import _ "go4.org/unsafe/assume-no-moving-gc"
