// Package onednn is the engine for CPUs: matrix products with frozen weights by Intel's oneDNN
// (version 2 or 3, through its C API) or, on CPUs with AVX-512, by a kernel of its own, everything
// else by vectorized C kernels. It is built with -tags onednn, where the library's headers are
// installed (Debian: libdnnl-dev), and runs on any CPU; with AVX2, AVX-512 and its bfloat16
// instructions it uses them.
//
// # Products
//
// On AVX-512 a product with frozen weights is a loop over tiles of 6 rows and a panel of 64 columns
// (frozen_impl.h), in float32 and, if the CPU has instructions for it, in bfloat16. Unlike the
// library's product, it reads rows in place and writes them to their destination, in either
// precision, and takes any number of rows, so that nothing is copied or padded. One packed copy of
// a weight serves both directions: backward turns its panels first. The library multiplies on other
// CPUs, and in bfloat16 on those with units for products of matrices (AMX).
//
// # Precision
//
// In float32 mode everything is float32. In bfloat16 mode packed weights and narrow tensors are
// bfloat16, and so are the operands of every product; sums, the residual stream, norms and softmax
// statistics are float32.
//
// # Bits
//
// The kernels' product sums each element along the depth in order, in one accumulator. Rows run
// through the library's product in blocks of a few fixed sizes. Sizes beside the base size are used
// only if a test at load shows that they give the same bits, sum by sum; otherwise a block is
// padded. Each product runs on one thread. So a row's bits depend neither on the rows beside it nor
// on the number of threads.
package onednn
