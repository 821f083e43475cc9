// Package pretrain trains all weights of a small T5 from nothing, on one machine: what made the embedded model.
//
// A run is a pure function of its Settings and its Corpus: neither the number of threads, nor when it was stopped and resumed, leaves a trace in a bit of the
// result (on one engine build and instruction set). A step's examples are cut into a fixed number of micro-batches; each is computed by one engine, single-threaded,
// and the gradients are added in the order of micro-batches.
package pretrain
