"""placeholder"""

from flowzoo.data.api import Dataset

LARGE: tuple[Dataset, ...] = ()
