#!/usr/bin/env bash
# All GPU jobs at once, in about 25 minutes: the tests on CUDA, the benchmarks, and one training.
#
#   bash benchmarks/gpu.sh DATA OUT [MINUTES]
#
# DATA is a folder of audio with splits; logs, results and the trained model in half precision go to OUT. Run it in an
# environment with torch for CUDA, all packages and the peers (`nox -s workspace` makes one for CPUs).
set -uo pipefail  # a failing step must not stop the others

data=$1 out=$2 minutes=${3:-12}
cd "$(dirname "$0")/.."
mkdir -p "$out"
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
python -c 'import torch; assert torch.cuda.is_available(), "no GPU"; print(torch.cuda.get_device_name(), torch.__version__)' || exit 2

python -m pytest -q -m gpu packages integration tests > "$out/tests.txt" 2>&1
for dtype in float32 bfloat16; do
    python benchmarks/activations.py --device cuda --dtype "$dtype" > "$out/activations_$dtype.txt" 2>&1
done
timeout 300 python benchmarks/encode_speed.py --seconds 60 > "$out/encode_speed.txt" 2>&1
timeout 120 python benchmarks/encoder_ladder.py --seconds 60 > "$out/encoder_ladder.txt" 2>&1
cp benchmarks/results/*.json "$out/"

partita train genae_small --data "$data" --output "$out/run" --minutes "$minutes" --steps 100000 data.num_workers=12 \
    > "$out/train.txt" 2>&1
partita evaluate "$out/run/model" --data "$data" --json "$out/evaluation.json" > "$out/evaluation.md" 2>&1
python - "$out" <<'END'
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

out = Path(sys.argv[1])
weights = load_file(out / "run/model/model.safetensors")
save_file({name: t.half() if t.is_floating_point() else t for name, t in weights.items()}, out / "model.safetensors")
for name in ("config.json", "README.md"):
    (out / name).write_bytes((out / "run/model" / name).read_bytes())
(out / "log.jsonl").write_bytes((out / "run/log.jsonl").read_bytes())
END
