"""Give a trained model to others through the model hub."""

from pathlib import Path
from typing import Annotated

import typer


def push_to_hub(
    model: Annotated[Path, typer.Argument(help="A model's folder, PixelCAM's or a teacher's.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="On the model hub; is made if need be.")],
    private: Annotated[bool, typer.Option("--private", help="Nobody else sees it.")] = False,
    card: Annotated[Path | None, typer.Option(help="The model card; by default the pipeline's.")] = None,
    params: Annotated[Path, typer.Option(help="The params file, which says how maps are read.")] = Path("params.yaml"),
    folder: Annotated[Path | None, typer.Option(help="Write the same files there instead, and upload nothing.")] = None,
) -> None:
    """Upload a model with its card and how its map is read, and nothing else; docs/model_cards.md."""
    from pipeline.export.hub import push, write_folder  # noqa: PLC0415 - torch and others take seconds to load

    if folder is not None:
        write_folder(folder, model, repository=repository, params=params, card=card)
        typer.echo(f"{folder}: holds what would be uploaded to {repository}")
    else:
        typer.echo(push(model, repository, private=private, params=params, card=card))
        typer.echo(f"to use it: pixelcam predict IMAGE --model hf-hub:{repository}")
