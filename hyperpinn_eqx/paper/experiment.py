"""What all experiments have in common."""


class Named:
    """An experiment by its name and recipe.

    Attributes:
        name: what `load_pretrained` calls its model.
        recipe: what the stages of its training are called.
    """

    name: str
    recipe: str

    @property
    def stem(self) -> str:
        """What the files of the trained model are called, without their endings."""
        return self.name if self.recipe == "best" else f"{self.name}-{self.recipe}"
