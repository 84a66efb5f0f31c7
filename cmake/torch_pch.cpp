// Carries the precompiled torch/torch.h of all targets; holds nothing itself.
