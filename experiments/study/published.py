"""Figures that the papers print, to hold a study against. CIFAR-10 and ResNet-18: sizes differ from a small study's,
signs and orders need not."""

from __future__ import annotations

# Alballa & Canini 2024 (arXiv 2402.14922), Table II: test accuracy (%) after 30 epochs of multi-teacher KD, by
# partition and start of experiments/compare.py.
TABLE_TWO_STARTS = ("kd-public-worst", "kd-public-worst-equal", "kd-public", "kd-public-equal", "kd-public-untrained",
                    "kd-public-untrained-equal", "kd-student-worst", "kd-student-worst-equal", "kd-student",
                    "kd-student-equal")
TABLE_TWO = {
    "uniform": (71.64, 72.36, 72.35, 73.43, 69.55, 70.59, 71.34, 72.24, 72.68, 73.97),
    "quantity-skew": (68.18, 64.89, 77.90, 73.86, 67.31, 64.66, 29.77, 30.01, 78.34, 76.33),
    "specialized": (51.57, 54.72, 53.07, 55.11, 52.55, 52.98, 43.70, 50.72, 52.39, 53.60),
    "random-chunks": (65.44, 66.73, 73.33, 71.68, 66.35, 66.22, 19.22, 20.67, 75.71, 75.41),
    "label-dirichlet": (61.67, 54.03, 67.63, 57.82, 63.77, 52.41, 28.61, 27.35, 66.92, 63.00),
}

# Alballa & Canini 2023 (EuroMLSys): accuracy in points relative to the participant's own start, by partner.
# Participants 1, 4 and 9 there are a weak, a middling and a strong one.
POSITIONS = {
    "weak": {"student": (8.22, 42.65, 9.59, 32.27, 28.61, 8.33, 37.10, 14.06, 41.25),
             "teacher": (11.70, 67.16, 10.51, 45.05, 33.97, 9.88, 48.02, 16.09, 62.71)},
    "middling": {"student": (3.31, 1.26, 19.86, 2.79, 8.91, 1.07, 10.57, 0.77, 15.63),
                 "teacher": (-9.74, -11.52, 24.37, -13.39, 0.07, -12.57, 10.50, -4.92, 19.80)},
    "strong": {"student": (3.85, 3.59, 7.09, 4.00, 4.46, 4.21, 3.86, 3.30, 3.91),
               "teacher": (-13.47, -17.87, 8.92, -11.27, 0.30, -3.19, -14.58, -0.05, -10.64)},
}

# Alballa & Canini 2024 (v2), abstract: what tuning adds to the gain of the best method without it.
TUNING_ADDS_UNIFORM, TUNING_ADDS_SKEWED = 0.16, 1.39
# Alballa & Canini 2023: the share of pairs that want settings other than T = 1, alpha = 0.5.
WANT_OTHER_SETTINGS = 2 / 3
