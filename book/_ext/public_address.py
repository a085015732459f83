"""Buttons to the repository and to Colab, if its address is known."""

COLAB = "https://colab.research.google.com"


def add_buttons(app, config):
    """The theme has a switch for each, and fails without an address."""
    options = config.html_theme_options
    address = options.get("repository_url") or ""
    options["use_repository_button"] = bool(address)
    if (
        "github.com/" in address
    ):  # Colab opens notebooks from nowhere else
        options["launch_buttons"] = {"colab_url": COLAB}


def setup(app):
    """Called by Sphinx."""
    app.connect("config-inited", add_buttons)
    return {"parallel_read_safe": True}
