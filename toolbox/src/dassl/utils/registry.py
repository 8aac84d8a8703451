"""Names to classes."""

from .tools import get_most_similar_str_to_a_from_b


class Registry:
    """A table from names to classes or functions, filled by a decorator.

    Example::

        MODELS = Registry("MODEL")

        @MODELS.register()
        class Small: ...

        MODELS.get("Small")()
    """

    def __init__(self, name: str):
        self._name = name
        self._obj_map = {}

    def register(self, obj=None, force: bool = False):
        """Enter ``obj`` under its ``__name__``; without ``obj``, return a decorator that does.

        Raises:
            KeyError: The name is taken and ``force`` is False.
        """
        if obj is None:
            return lambda decorated: self.register(decorated, force=force)
        name = obj.__name__
        if name in self._obj_map and not force:
            raise KeyError(f"{name!r} is already registered in {self._name}; pass force=True to replace it")
        self._obj_map[name] = obj
        return obj

    def get(self, name: str):
        """Return what is registered under ``name``.

        Raises:
            KeyError: Nothing is; the message names the closest match and lists all.
        """
        if name not in self._obj_map:
            names = self.registered_names()
            hint = f" Did you mean {get_most_similar_str_to_a_from_b(name, names)!r}?" if names else ""
            raise KeyError(f"{name!r} is not registered in {self._name}.{hint} Registered: {names}")
        return self._obj_map[name]

    def registered_names(self) -> list[str]:
        """Return the names in order of registration."""
        return list(self._obj_map)

    def __contains__(self, name):
        return name in self._obj_map
