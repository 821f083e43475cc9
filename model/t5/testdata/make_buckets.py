"""Writes buckets.json: relative position buckets as Transformers computes them (versions: ../../parity/requirements.txt)."""
import json
import pathlib

import torch
from transformers.models.t5.modeling_t5 import T5Attention

golden = []
for buckets, distance in [(32, 128), (8, 16), (32, 256), (64, 128), (16, 20), (4, 3), (12, 50), (48, 1000), (128, 512), (34, 128), (6, 4)]:
    for bidirectional in (True, False):
        d = torch.arange(-2 * distance - 5, 2 * distance + 6 if bidirectional else 1)
        b = T5Attention._relative_position_bucket(d, bidirectional=bidirectional, num_buckets=buckets, max_distance=distance)
        runs = []
        for x, y in zip(d.tolist(), b.tolist()):
            if not runs or runs[-1][1] != y:
                runs.append([x, y])
        golden.append({"buckets": buckets, "maxDistance": distance, "bidirectional": bidirectional,
                       "lo": int(d[0]), "hi": int(d[-1]), "runs": runs})
out = pathlib.Path(__file__).parent / "buckets.json"
out.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
