package coordpb

// FineTuning is the TrainSpec.method of full fine-tuning: the parameters are all weights of the
// model, and there is no prompt. Every other method is one of package prompt.
const FineTuning = "ft"
