"""A stock of parts. Two lines are still to be written: `codegen25 infill examples/inventory.py --at 16 --at 24`."""

from dataclasses import dataclass, field


@dataclass
class Inventory:
    """How many of each part there are, by name."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, number: int = 1) -> None:
        """Put `number` more of a part into the stock."""
        if number < 0:
            raise ValueError("number must not be negative")
        

    def take(self, name: str, number: int = 1) -> None:
        """Take `number` of a part out of the stock."""
        if self.counts.get(name, 0) < number:
            raise ValueError(f"not enough of {name}")
        self.counts[name] -= number
        if self.counts[name] == 0:
            

    def total(self) -> int:
        """How many parts there are in all."""
        return sum(self.counts.values())
