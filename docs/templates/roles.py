"""Roles that `nox -s new` writes components of, and where a component of each belongs in this repository."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """Home of the components of a role.

    Attributes:
        package: package that holds them, as it is imported.
        module: module below the package that their modules are in; empty for the package itself.
        distributions: packages of this repository that a component in a package of its own requires.
        suffix: end of the class name, for roles that share names.
        config: whether a Config class is exported together with the class.
        listing: list that names every component: file, text before its entries, and entry.
        suite: conformance suite in `partita_testing`; empty for none.
        use: override that uses the component in a training run; or a command.
    """

    package: str
    module: str = ""
    distributions: tuple[str, ...] = ("partita-core",)
    suffix: str = ""
    config: bool = True
    listing: tuple[str, str, str] = ("", "", "")
    suite: str = ""
    use: str = ""

    @property
    def folder(self) -> str:
        """Folder of the package, from the root."""
        return "integration" if self.package == "partita" else f"packages/{self.package.removeprefix('partita_')}"

    @property
    def home(self) -> str:
        """Module that the modules of components are in, as it is imported."""
        return f"{self.package}.{self.module}" if self.module else self.package

    @property
    def public(self) -> str:
        """Module that users import a component from."""
        return self.home if self.package == "partita" else self.package


def _entry(test: str, role: str) -> tuple[str, str, str]:
    return test, "COMPONENTS = [\n", f'"{role}/NAME",'


_RECIPES = "    recipe.__name__: recipe\n    for recipe in (\n"
_TRAIN = "partita train genae_tiny --data DIR --output RUN"

ROLES = {
    "bottleneck": Role(
        "partita_bottlenecks",
        listing=_entry("packages/bottlenecks/tests/test_bottlenecks_conformance.py", "bottleneck"),
        suite="BOTTLENECK_CHECKS",
        use=f"{_TRAIN} model.bottleneck=NAME",
    ),
    "quantizer": Role(
        "partita_quantizers",
        listing=_entry("packages/quantizers/tests/test_quantizers_conformance.py", "quantizer"),
        suite="QUANTIZER_CHECKS",
        use=f"{_TRAIN} model.bottleneck=NAME",
    ),
    "encoder": Role(
        "partita_encoders",
        suffix="Encoder",
        listing=_entry("packages/encoders/tests/test_encoders_conformance.py", "encoder"),
        suite="ENCODER_CHECKS",
        use=f"{_TRAIN} model.encoder=NAME model.encoder.hop=3360",
    ),
    "decoder": Role(
        "partita_decoders",
        suffix="Decoder",
        listing=_entry("packages/decoders/tests/test_decoders_conformance.py", "decoder"),
        suite="DECODER_CHECKS",
        use=f"{_TRAIN} model.decoder=NAME",
    ),
    "sampler": Role(
        "partita_decoders",
        "samplers",
        distributions=("partita-core", "partita-blocks", "partita-decoders"),
        config=False,
        listing=_entry("packages/decoders/tests/test_decoders_sampler_conformance.py", "sampler"),
        suite="SAMPLER_CHECKS",
        use="partita decode MODEL LATENTS --output OUT --sampler NAME",
    ),
    "loss": Role(
        "partita_losses",
        distributions=("partita-core", "partita-blocks", "partita-losses"),
        listing=_entry("packages/losses/tests/test_losses_conformance.py", "loss"),
        suite="LOSS_CHECKS",
        use=f"{_TRAIN} objective.losses.NAME=NAME objective.weights.NAME=1.0",
    ),
    "discriminator": Role(
        "partita_losses",
        suffix="Discriminator",
        listing=_entry("packages/losses/tests/test_losses_conformance.py", "discriminator"),
        suite="DISCRIMINATOR_CHECKS",
        use=f"{_TRAIN} objective.discriminator=NAME",
    ),
    "metric": Role(
        "partita",
        "evaluation.metrics",
        listing=("docs/evaluation.md", "|---|---|---|---|---|---|---|---|\n", "| `NAME` | TITLE | | 0 ↓ | | | | |"),
        suite="METRIC_CHECKS",
        use="partita evaluate MODEL --data DIR --metrics NAME",
    ),
    "objective": Role(
        "partita",
        "objectives",
        distributions=("partita-core", "partita-losses", "partita"),
        listing=_entry("integration/tests/test_objectives_conformance.py", "objective"),
        suite="OBJECTIVE_CHECKS",
        use=f"{_TRAIN} objective=NAME",
    ),
    "recipe": Role(
        "partita",
        "recipes",
        distributions=("partita-core", "partita"),
        config=False,
        listing=("integration/src/partita/recipes/catalog.py", "RunConfig]] = {\n" + _RECIPES, "NAME,"),
        use="partita train NAME --data DIR --output RUN",
    ),
}
