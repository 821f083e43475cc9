// Package pretrain is part of the lab, not of the trainer: it trains all weights of a small T5 from
// random ones, on one machine. It made the embedded model.
//
// A run is a pure function of its Settings and its Corpus: on one engine build and instruction set,
// neither the number of threads nor stopping and resuming changes a bit of the result. A step's
// examples are cut into a fixed number of micro-batches. One single-threaded engine computes each,
// and the gradients are added in the order of the micro-batches.
package pretrain
