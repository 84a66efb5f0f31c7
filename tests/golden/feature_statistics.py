"""Mean, deviation and range of columns with missing values, as numpy has them over all samples.

Usage: python3 tests/golden/feature_statistics.py    (writes tests/golden/feature_statistics.json)
"""

import json
import pathlib

import numpy


def pooled_samples():
    place = numpy.arange(600, dtype=numpy.float64).reshape(200, 3)
    x = (numpy.sin(place * 0.7) * [1.0, 1e-3, 5e4] + [0.0, 12.0, 3e6]).astype(numpy.float32)
    x[numpy.arange(0, 200, 7), 1] = numpy.nan
    return x.astype(numpy.float64)


def main():
    x = pooled_samples()
    document = {"count": (~numpy.isnan(x)).sum(0).tolist(), "missing": numpy.isnan(x).sum(0).tolist(),
                "mean": numpy.nanmean(x, 0).tolist(), "deviation": numpy.nanstd(x, 0).tolist(),
                "least": numpy.nanmin(x, 0).tolist(), "greatest": numpy.nanmax(x, 0).tolist()}
    target = pathlib.Path(__file__).parent / "feature_statistics.json"
    target.write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
