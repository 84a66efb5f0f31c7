// Carries the precompiled headers of all targets that use LibTorch; holds nothing itself.
