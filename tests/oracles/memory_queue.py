"""A memory queue as a list that is overwritten one row at a time."""


class SlowQueue:
    """`rows`: N values; `oldest`: the position of the next insertion."""

    def __init__(self, rows):
        self.rows = list(rows)
        self.oldest = 0

    def insert(self, *batches):
        for batch in batches:
            for row in batch:
                self.rows[self.oldest] = row
                self.oldest += 1
                if self.oldest == len(self.rows):
                    self.oldest = 0
