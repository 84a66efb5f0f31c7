// Joint distillation between two pre-trained models beyond vanilla KD: data-partitioning KD and deep mutual learning.
// Sources: Alballa & Canini 2024 (arXiv 2402.14922), section II; Roth et al. 2023 (arXiv 2310.17653); Zhang et al.
// 2018.
#pragma once

#include <optional>
#include <stop_token>

#include "shared/learn/distill/distiller.hpp"

namespace headstart::learn {

/// Who teaches each sample in data-partitioning KD: true where the teacher does, false where the frozen copy of the
/// initial student does. At T = 1, strict: ties stay with the copy.
///   with labels     p_t[y] > p_st[y]
///   without labels  max_c p_t[c] > max_c p_st[c]
/// logits: [N, C] each; labels: int64 [N]. Returns bool [N].
Tensor teacher_mask(const Tensor& teacher_logits, const Tensor& copy_logits, const std::optional<Tensor>& labels);

/// The soft targets of data-partitioning KD, each sample's from whom the mask says: softmax(z / T), [N, C]. Distilled
/// without labels they give  T^2 mean_n( m KL(p_t || p_s) + (1 - m) KL(p_st || p_s) )  up to a constant.
Tensor partitioned_targets(const Tensor& teacher_logits, const Tensor& copy_logits, const Tensor& mask,
                           double temperature);

/// Deep mutual learning, one side: CE(y, p) + KL(p_peer || p) at T = 1, the peer constant; without labels the KL alone.
/// Mean over the batch, sum over classes. logits, peer_logits: [B, C].
Tensor mutual_loss(const Tensor& logits, const Tensor& peer_logits, const std::optional<Tensor>& labels);

/// Trains both models at once on the same batches: each step computes both losses before either model changes. Fresh
/// optimisers; `options` gives epochs, batch size and optimiser (its temperature and alpha have no part in it); orders
/// from seed.child(epoch), from 0. Both end with their last state. Errors as Distiller.
void learn_mutually(Model& a, Model& b, const Samples& transfer, const DistillOptions& options, Seed seed,
                    const ProgressCallback& progress = {}, std::stop_token stop = {});

}  // namespace headstart::learn
