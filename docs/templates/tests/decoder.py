import torch
from partita_core import AudioSpec, LatentSpec
from partita_newcomer import Newcomer


def test_newcomer_depends_on_the_frames_within_its_reach():
    torch.manual_seed(0)
    decoder = Newcomer(LatentSpec(4, 8000, 16), AudioSpec(8000), width=8, reach=1).eval()
    layout = torch.zeros(1, dtype=torch.int64)
    latents = torch.randn(1, 4, 9)
    changed = latents.clone()
    changed[..., 4] += 1
    difference = (decoder(changed, layout) - decoder(latents, layout)).abs().unflatten(-1, (9, 16)).amax((0, 1, 3))
    assert (difference > 0).tolist() == [3 <= frame <= 5 for frame in range(9)]
