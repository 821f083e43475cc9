// Package onednn is the engine for CPUs: matrix products with frozen weights by Intel's oneDNN (version 2 or 3, through its C API),
// everything else by vectorized C kernels of its own. It is built with -tags onednn, where the library's headers are installed
// (Debian: libdnnl-dev), and runs on any CPU; with AVX2, AVX-512 and its bfloat16 instructions it uses them.
//
// # Precision
//
// In float32 mode all is float32. In bfloat16 mode packed weights and narrow tensors are bfloat16, and so are the operands of every
// product; sums, the residual stream, norms and softmax statistics are float32.
//
// # Bits
//
// Rows run through products in blocks of a few fixed sizes. Smaller sizes are used beside the first only where a
// test at load shows that they give the same bits, sum by sum; elsewhere a block is filled up. Each product runs on one thread. So a row's bits
// depend neither on the rows beside it nor on the number of threads.
package onednn
