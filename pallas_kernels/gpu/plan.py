"""How a call is cut into programs on a GPU: the geometry, and the estimate of time by which it is chosen."""
from typing import NamedTuple

ROWS, LANES = 4, 32
AHEAD = 4            # default number of steps between loading an operand and using it
CORES = 132          # streaming multiprocessors of a Hopper chip
SHORTEST = 64        # minimum steps of a chunk: below, a kernel's launch costs more than the steps it saves
LAUNCH = 8000        # clocks of a launch
RESIDENT = 3         # programs at once on a multiprocessor: by their registers, and of several states by shared memory
DIRECTIONS = 4       # of the scan of a map
PROGRAMS = 380       # programs of a map's scan from which two channels per lane are faster than one
FEWEST = 160         # programs of a map's scan below which four scans are faster
OFFSETS = 2**32      # a program's offsets between its rows are 32-bit
SUM_BYTES = 2**16    # most shared memory of the sum of a map's directions
SPLIT = 4            # lanes that share a channel of several states
QUAD = 4             # steps that a warpgroup loads at once in the kernels of several states
BLOCK = 32           # steps between two saved states there: what shared memory holds
SEGMENTS = {1: 64, 2: 32, 3: 16, 4: 16}    # steps between two saved states, by channels per lane, for one state


class Plan(NamedTuple):
    """Static geometry of one call."""
    batch: int
    length: int
    groups: int
    given: int       # channels of a group
    lanes: int       # the same, padded to 32 if below
    across: int      # channels per lane
    tiles: int       # tiles of a group
    chunks: int      # chunks of a sequence
    steps: int       # steps of a chunk
    segment: int     # steps between two saved states
    ahead: int       # steps between loading an operand and using it; fewer for many states, whose steps are longer and slower to compile
    map: tuple[int, int] | None = None     # height and width of a map, whose groups are the four directions over one u; None: sequences
    turns: int = 1   # groups that a program scans one after the other
    part: int = 0    # of several states, those of a lane: a program holds one row, not four (`state_tiles`); 0: one state

    @property
    def width(self):
        return LANES * self.across

    @property
    def rows(self):
        return self.batch * self.chunks

    @property
    def segments(self):
        return -(-self.steps // self.segment)

    @property
    def padded(self):
        """Steps of a chunk with the empty ones that fill its last four."""
        return -(-self.steps // QUAD) * QUAD

    @property
    def channels(self):
        return self.groups * self.lanes

    @property
    def overlapping(self):
        return self.tiles * self.width > self.lanes


def plan(batch, length, groups, per_group, state):
    """The `Plan` of a call.

    Of the tile widths that compute the fewest channels twice, and the numbers of chunks of at least SHORTEST steps, it takes the pair whose
    programs are done first (`_clocks`). A program of one state needs 4 rows: a batch below 4 is always cut.

    Saved states take N / segment of u's memory; a segment is what shared memory holds: 32 KB at N = 1.
    """
    if state > 1:
        return _plan_states(batch, length, groups, per_group, state)
    lanes, count = max(per_group, LANES), widths(per_group)
    programs = {m: -(-batch // ROWS) * groups * count[m] for m in count}
    least = -(-ROWS // batch)
    most = {m: max(least, min(length // SHORTEST, -(-2 * CORES * RESIDENT // programs[m]))) for m in count}
    pairs = [(m, k) for m in count for k in range(least, most[m] + 1)]
    across, chunks = min(pairs, key=lambda pair: _clocks(*pair, batch, length, groups * count[pair[0]]))
    return Plan(batch, length, groups, per_group, lanes, across, count[across], chunks, -(-length // chunks), SEGMENTS[across], AHEAD)


def _plan_states(batch, length, groups, per_group, state):
    """The `Plan` of several states per channel: 32 channels of one row per program, and the number of chunks whose programs are done first."""
    lanes = max(per_group, LANES)
    tiles = -(-lanes // LANES)
    most = max(1, min(length // SHORTEST, -(-2 * CORES * RESIDENT // (batch * groups * tiles))))
    part = 1 if state <= SPLIT else 2 if state <= 2 * SPLIT else 4
    chunks = min(range(1, most + 1), key=lambda k: _clocks_of_states(k, batch, length, groups * tiles, part))
    return Plan(batch, length, groups, per_group, lanes, 1, tiles, chunks, max(-(-length // chunks), QUAD), BLOCK, QUAD, part=part)


def _clocks_of_states(chunks, batch, length, tiles, part):
    """Estimated time of a scan, as `_clocks`, by a simulation of how compiled code issues: 60 clocks for a step of one program among three on a
    multiprocessor at N = 16, whose exponentials take half of them, and 100 for a step of a program alone, which waits for shared memory."""
    steps = -(-length // chunks)
    full, rest = divmod(batch * chunks * tiles, CORES * RESIDENT)
    wave = lambda n: steps * max(60 + 10 * part, n * (20 + 10 * part))
    clocks = full * wave(RESIDENT) + (wave(-(-rest // CORES)) if rest else 0)
    return _with_cut(clocks, chunks, length)


def widths(per_group):
    """{channels per lane: tiles of a group} of the tile widths that compute the fewest channels twice, the widest first."""
    lanes = max(per_group, LANES)
    count = {m: -(-lanes // (LANES * m)) for m in range(4, 0, -1) if LANES * m <= lanes}
    least = min(m * tiles for m, tiles in count.items())
    return {m: tiles for m, tiles in count.items() if m * tiles == least}


def _clocks(across, chunks, batch, length, tiles):
    """Estimated time of a scan of one state: waves of as many programs as run at once, of which the last may have fewer on a multiprocessor.

    A step of n programs on a multiprocessor takes 85 clocks per program and channel of a lane (memory), and no less than a load's latency. The
    other numbers are from compiled code, by a simulation of how it issues, and choose between plans only.
    """
    steps = -(-length // chunks)
    full, rest = divmod(-(-batch * chunks // ROWS) * tiles, CORES * RESIDENT)
    wave = lambda n: steps * max(260 + 60 * across, across * n * 85)
    clocks = full * wave(RESIDENT) + (wave(-(-rest // CORES)) if rest else 0)
    return _with_cut(clocks, chunks, length)


def _with_cut(clocks, chunks, length):
    """Time of all kernels of a scan in chunks, given that of the last."""
    if chunks > 1:                                    # two kernels, a loop that joins the chunks or, for many, its own kernels
        clocks = 1.7 * clocks + LAUNCH * (2 if chunks <= 16 else 6)
    return clocks + (clocks / 2 if length % chunks else 0)      # u and delta are padded by a copy


def map_plan(batch, height, width, channels, state):
    """The `Plan` of a map's four directions in one launch; None where four scans, which may cut time, take less.

    The rules are from times on an H200 at batches of 128 and 32 and the maps of VMamba-T (docs/benchmarks.md): two channels per lane where
    PROGRAMS programs remain, else one, with more loads in flight; all directions in one program where their sum leaves room for four
    programs on a multiprocessor. Maps of more than one state, and batches below a program's four rows, were not timed and take four scans.
    """
    if state > 1 or batch < ROWS:
        return None
    tiles = widths(channels)
    programs = lambda across: -(-batch // ROWS) * DIRECTIONS * tiles[across]
    across = next((m for m in (2, 3, 4) if m in tiles and programs(m) >= PROGRAMS), min(tiles))
    length = height * width
    if programs(across) < FEWEST or (ROWS - 1) * length * DIRECTIONS * max(channels, LANES) >= OFFSETS:
        return None
    fits = sum_bytes(length, across) <= SUM_BYTES and programs(across) >= DIRECTIONS * CORES
    return map_geometry(batch, height, width, channels, across, AHEAD if across > 1 else 2 * AHEAD, DIRECTIONS if fits else 1)


def map_geometry(batch, height, width, channels, across, ahead, turns):
    """The `Plan` of a map of one state with these channels per lane, steps ahead and directions per program."""
    length = height * width
    return Plan(batch, length, DIRECTIONS, channels, max(channels, LANES), across, widths(channels)[across], chunks=1, steps=length,
                segment=SEGMENTS[across], ahead=ahead, map=(height, width), turns=turns)


def sum_bytes(length, across):
    """Shared memory of a program that adds up the directions of a map."""
    return 4 * length * ROWS * LANES * across
