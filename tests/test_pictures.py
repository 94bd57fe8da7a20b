import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import colors
from matplotlib import image as mpl_image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from scipy import ndimage

from tfaug import pictures
from tfaug.data.task import Task

COLOURS = Task({"RV": 1, "Myo": 2, "LV": 3}).colours


def near(picture, colour):
    """Where the picture shows `colour`, up to antialiasing."""
    target = 255 * np.array(colors.to_rgb(colour))
    return np.abs(picture.astype(float) - target).max(axis=-1) < 24


def slices(count, shape=(60, 50)):
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.normal(size=(count, *shape)), (0, 3, 3))
    mask = np.zeros((count, *shape), np.uint8)
    mask[:, 10:30, 10:40], mask[:, 30:50, 10:40], mask[:, 35:45, 20:30] = 1, 2, 3
    return image.astype(np.float32), mask


def test_arrows_agree_with_the_warp_and_with_the_display():
    """A spot warped by a constant (5, -3) must move along the arrow that points at it."""
    deformation = np.broadcast_to(np.array([5.0, -3.0]), (40, 30, 2))
    image = np.zeros((40, 30))
    image[20, 20] = 1
    i, j = np.indices(image.shape)
    warped = ndimage.map_coordinates(image, [i - deformation[..., 0], j - deformation[..., 1]], order=1)
    x, y, u, v = (a.ravel() for a in pictures.arrows(deformation, step=1))
    arrow = np.flatnonzero((x == 20) & (y == 20)).item()  # display x is the first array axis, y the second, down
    assert (x[arrow] + u[arrow], y[arrow] + v[arrow]) == np.unravel_index(warped.argmax(), warped.shape)


def test_arrows_end_on_their_pixel_also_when_enlarged():
    deformation = np.random.default_rng(0).normal(size=(24, 36, 2))
    x, y, u, v = pictures.arrows(deformation, step=8, enlarge=3)
    np.testing.assert_allclose(x + u, [[i] * 4 for i in (4, 12, 20)])
    np.testing.assert_allclose((y + v)[0], [4, 12, 20, 28])
    np.testing.assert_allclose(u[1, 2], 3 * deformation[12, 20, 0])
    np.testing.assert_allclose(v[1, 2], 3 * deformation[12, 20, 1])


@pytest.mark.parametrize("direction", [(6.0, 0.0), (0.0, 6.0), (-6.0, 3.0)])
def test_drawn_arrows_point_where_content_goes(direction):
    figure, tiles = pictures._canvas(1, 1, COLOURS)
    pictures._deformations(tiles[:, 0], [np.broadcast_to(direction, (48, 48, 2))])
    figure.canvas.draw()
    (quiver,) = (artist for artist in tiles[0, 0].collections if isinstance(artist, Quiver))
    tip = max(quiver.get_paths()[0].vertices, key=np.linalg.norm)  # seen from the tail, x to the right, y up
    assert tip / np.linalg.norm(tip) == pytest.approx((1, -1) * np.array(direction) / np.hypot(*direction))


@pytest.mark.parametrize("framed", [(), (3, 10, 11), range(0, 40, 2)])
def test_of_very_many_tiles_the_framed_ones_and_an_even_selection_are_drawn(monkeypatch, framed):
    """And the picture says so: Matplotlib refuses 2^16 pixels, and thousands of tiles take minutes."""
    monkeypatch.setattr(pictures, "MOST_TILES", 12)
    drawn = []
    monkeypatch.setattr(pictures, "_scan", lambda tile, image, window: drawn.append(image[0, 0]))
    texts = []
    monkeypatch.setattr(pictures, "rendered", lambda figure: texts.extend(text.get_text() for text in figure.texts))
    numbers = [np.full((4, 4), k) for k in range(40)]
    frames = ["red" if k in framed else None for k in range(40)]
    pictures.overlay(numbers, [0 * one for one in numbers], [""] * 40, COLOURS, columns=5, frames=frames)
    assert texts == ["12 of 40 are shown"] and len(drawn) == 12 and drawn == sorted({*drawn})
    if len(framed) < 12:
        assert {*framed} <= {*drawn}
        gaps = np.diff([k for k in drawn if k not in framed])
        assert max(gaps) <= 2 * 40 // (12 - len(framed))
    else:
        assert {*drawn} <= {*framed}
    drawn.clear(), texts.clear()
    pictures.overlay(numbers[:12], numbers[:12], [""] * 12, COLOURS)
    assert len(drawn) == 12 and not texts


def test_first_axis_runs_right_and_second_down_for_scan_and_contours():
    def centres(rows, columns):
        mask = np.zeros((50, 50), int)
        mask[rows, columns] = 3
        image = np.where(mask, 0.5, 0.0)
        image[0] = 1  # sets the grey window
        picture = pictures.overlay([image], [mask], [""], COLOURS)[: -int(pictures.LEGEND * pictures.DPI)]
        return [np.argwhere(near(picture, c)).mean(axis=0) for c in (COLOURS["LV"], "#808080")]

    middle, tile = centres(slice(20, 30), slice(20, 30)), pictures.TILE * pictures.DPI
    moved = centres(slice(35, 45), slice(5, 15))  # 15 of 50 pixels further along x, nearer along y
    for here, there in zip(middle, moved):
        np.testing.assert_allclose(there - here, (-0.3 * tile, 0.3 * tile), atol=3)


def test_each_structure_has_its_colour_and_an_absent_one_none():
    image, mask = slices(1)
    drawn = pictures.overlay(image, mask, ["a"], COLOURS)[: -int(pictures.LEGEND * pictures.DPI)]
    assert all(near(drawn, colour).sum() > 20 for colour in COLOURS.values())
    mask[mask == 2] = 0
    drawn = pictures.overlay(image, mask, ["a"], COLOURS)[: -int(pictures.LEGEND * pictures.DPI)]
    assert not near(drawn, COLOURS["Myo"]).any()


@pytest.mark.parametrize("value", [0, 3])
def test_empty_and_full_masks_are_drawn(value):
    image, mask = slices(2)
    picture = pictures.segmentation_panel(image, np.full_like(mask, value), mask, COLOURS, ["one", "two"])
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3


@pytest.mark.parametrize("kind, channels", [("deform", 2), ("intensity", 1)])
@pytest.mark.parametrize("scale", [0.0, 4.0])
def test_generator_panel(kind, channels, scale):
    image, mask = slices(3)
    fields = scale * np.random.default_rng(1).normal(size=(*image.shape, channels))
    with np.errstate(all="raise"):
        picture = pictures.generator_panel(image, fields, image + scale, mask, mask, kind, COLOURS)
    assert picture.dtype == np.uint8 and picture.shape[1] > picture.shape[0]
    assert len(np.unique(picture)) > 100


def test_an_unknown_kind_of_generator_is_refused():
    image, mask = slices(1)
    with pytest.raises(ValueError, match="affine"):
        pictures.generator_panel(image, image[..., None], image, mask, mask, "affine", COLOURS)


@pytest.mark.parametrize("kind, channels", [("deform", 2), ("intensity", 1)])
def test_draws_of_one_image_stand_side_by_side_on_one_scale(kind, channels):
    image, mask = slices(4)
    fields = np.ones((3, *image.shape[1:], channels)) * np.reshape([0.0, 1.0, 2.0], (3, 1, 1, 1))
    masks = np.stack([mask[0], np.where(mask[0] == 3, 3, 0), np.zeros_like(mask[0])])
    picture = pictures.draws_panel(image[0], mask[0], fields, image[1:], masks, kind, COLOURS)[
        : -int(100 * pictures.LEGEND)
    ]
    tile = int(100 * pictures.TILE)
    rows = [slice(int(100 * pictures.TITLE) + k * tile, int(100 * pictures.TITLE) + (k + 1) * tile) for k in (0, 1)]
    starts = [int(100 * (pictures.TITLE + pictures.GAP + k * (pictures.TILE + pictures.GAP))) for k in range(4)]
    above, below = ([picture[row, start + 4 : start + tile - 4] for start in starts] for row in rows)
    shown = {name: [near(part, c).sum() > 20 for part in below] for name, c in COLOURS.items()}
    assert shown == {"RV": [1, 1, 0, 0], "Myo": [1, 1, 0, 0], "LV": [1, 1, 1, 0]}
    assert not any(near(part, COLOURS["RV"]).sum() > 20 for part in above[:1])  # the input without contours
    medians = [np.median(part.reshape(-1, 3), axis=0) for part in above[1:]]
    assert len({tuple(median) for median in medians}) == 3


@pytest.mark.parametrize("one_window", [False, True])
def test_one_window_shows_which_slice_is_brighter(one_window):
    image, mask = slices(1)
    tiles = pictures.overlay([image[0], image[0] + 1], [0 * mask[0]] * 2, ["", ""], COLOURS, one_window=one_window)
    inner = tiles[30 : int(pictures.TILE * pictures.DPI)]
    left, right = np.array_split(inner, 2, axis=1)
    assert (right.mean() > left.mean() + 20) == one_window


def test_overlay_takes_slices_of_different_shapes():
    images, masks = zip(*[(np.eye(n, n + 9), np.eye(n, n + 9, dtype=int)) for n in (20, 33, 57)])
    one_row = pictures.overlay(images, masks, "abc", COLOURS, references=masks, columns=3)
    two_rows = pictures.overlay(images, masks, "abc", COLOURS, columns=2)
    assert two_rows.shape[0] > 1.5 * one_row.shape[0]
    assert two_rows.shape[1] < one_row.shape[1]


def test_overlay_leaves_a_place_empty():
    image, mask = slices(1)
    tiles = pictures.overlay([image[0], None, image[0]], [mask[0], None, mask[0]], ["a", "", "b"], COLOURS, columns=3)
    left, middle, right = np.array_split(tiles[: int(pictures.TILE * pictures.DPI)], 3, axis=1)
    assert (middle[:, 20:-20] == 255).all() and left.mean() < 200 > right.mean()
    full = pictures.overlay([image[0]] * 3, [mask[0]] * 3, ["a", "", "b"], COLOURS, columns=3)
    assert full.shape == tiles.shape


def test_a_saved_picture_is_read_back(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    pictures.save(picture, tmp_path / "picture.png")
    np.testing.assert_array_equal(np.round(255 * mpl_image.imread(tmp_path / "picture.png"))[..., :3], picture)


def every_picture(folder, title="a"):
    """One of each kind, and one as it is read back from its file."""
    image, mask = slices(2, (32, 32))
    field, colours = np.ones((*image.shape, 2)), {**COLOURS}
    drawn = {
        "overlay": pictures.overlay(image, mask, [title, title], colours, references=mask),
        "segmentation": pictures.segmentation_panel(image, mask, mask, colours, [title, title]),
        "generator": pictures.generator_panel(image, field, image, mask, mask, "deform", colours, [title, title]),
        "draws": pictures.draws_panel(image[0], mask[0], field, image, mask, "deform", colours),
    }
    for save in (pictures.save, pictures.save_small):
        save(drawn["overlay"], folder / "saved.png")
        drawn[save.__name__] = mpl_image.imread(folder / "saved.png")
    return drawn


def test_v1_the_users_style_has_no_influence_and_stays_the_users(tmp_path):
    expected = every_picture(tmp_path)
    style = {"image.origin": "lower", "text.usetex": True, "font.size": 30, "axes.grid": True, "image.cmap": "jet"}
    with matplotlib.rc_context({**style, "axes.facecolor": "red", "figure.facecolor": "blue", "lines.linewidth": 9}):
        found = every_picture(tmp_path)
        assert {key: matplotlib.rcParams[key] for key in style} == style
    assert {name: picture.shape for name, picture in found.items()} == {n: p.shape for n, p in expected.items()}
    assert [name for name in expected if not np.array_equal(found[name], expected[name])] == []


def test_v1_a_backend_that_is_not_there_has_no_influence():
    """As that of a notebook, for a program that one starts."""
    program = "from tfaug.commands import cli\ndef main():\n    import tfaug.pictures\n    print('fine')\ncli.run(main)"
    for backend in ("module://matplotlib_inline.backend_inline", "nonsense"):
        environment = {**os.environ, "MPLBACKEND": backend}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


@pytest.mark.parametrize("name, same", [("a\x1b[31m", "a\\x1b[31m"), ("a\x14", "a\\x14"), ("心", "心")])
def test_a_name_that_the_font_cannot_show_is_drawn_without_a_word(name, same, recwarn):
    image, mask = slices(1, (32, 32))
    found, expected = (pictures.overlay(image, mask, [title], COLOURS) for title in (name, same))
    np.testing.assert_array_equal(found, expected)
    assert not [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)]


def test_v2_a_dollar_in_a_name_is_drawn_as_it_is(tmp_path):
    plain, sound, broken = (every_picture(tmp_path, title) for title in ("aba", "$b$", "$\\frac$"))
    for name in ("overlay", "segmentation", "generator"):
        assert not np.array_equal(plain[name], sound[name]) and not np.array_equal(sound[name], broken[name])
    image, mask = slices(1)
    colours = {"$b$": "#56B4E9", "$\\frac$": "#F0E442", "LV": "#D55E00"}
    assert pictures.overlay(image, mask, ["a"], colours).shape == pictures.overlay(image, mask, ["a"], COLOURS).shape
    ink = [(every_picture(tmp_path, title)["overlay"][:20] < 128).sum() for title in ("$b$", "b")]
    assert ink[0] > 1.5 * ink[1]  # the dollars are there


def test_a_small_file_shows_the_same_picture(tmp_path):
    image, mask = slices(4, (128, 128))
    picture = pictures.overlay(image, mask, "abcd", COLOURS)
    for save in (pictures.save, pictures.save_small):
        save(picture, tmp_path / f"{save.__name__}.png")
    small = np.round(255 * mpl_image.imread(tmp_path / "save_small.png"))[..., :3]
    assert np.abs(small - picture).max() <= 4
    assert (small[picture == 255] == 255).all() and (small[picture == 0] == 0).all()
    assert (tmp_path / "save_small.png").stat().st_size < 0.7 * (tmp_path / "save.png").stat().st_size


def test_the_legend_of_many_structures_takes_more_rows_and_names_them_all():
    image, mask = slices(1)
    many = Task({f"structure {k}": k for k in range(1, 18)}).colours
    few, drawn = pictures.overlay(image, mask, ["a"], COLOURS), pictures.overlay(image, mask, ["a"], many)
    assert drawn.shape[0] > few.shape[0] and drawn.shape[1] == few.shape[1]
    below = drawn[-(drawn.shape[0] - few.shape[0] + int(pictures.LEGEND * pictures.DPI)) :]
    assert all(near(below, colour).any() for colour in many.values())


def test_one_structure_is_drawn_and_named_in_every_panel():
    colours = Task({"liver": 7}).colours
    image, mask = slices(2)
    mask, field = (mask == 3).astype(np.uint8), np.ones((*image.shape, 2))
    for picture in (
        pictures.overlay(image, mask, ["a", "b"], colours, references=np.zeros_like(mask)),
        pictures.segmentation_panel(image, mask, mask, colours),
        pictures.generator_panel(image, field, image, mask, mask, "deform", colours),
        pictures.draws_panel(image[0], mask[0], field, image, mask, "deform", colours),
    ):
        legend = int(pictures.LEGEND * pictures.DPI)
        assert near(picture[:-legend], colours["liver"]).sum() > 20  # its contour
        assert near(picture[-legend:], colours["liver"]).sum() > 20


def comparison(predicted=(11.0, 19.0, 33.0), reference=(10.0, 20.0, 30.0), bias=1.0, limits=3.92, colour="#D55E00"):
    values = np.array(predicted), np.array(reference)
    return pictures.Comparison("LV $EDV", "ml", colour, *values, bias, limits, "r = 0.99")


def test_a_bland_altman_chart_has_differences_over_means_bias_and_limits_all_within_view():
    figure = Figure()
    FigureCanvasAgg(figure)
    chart = figure.add_subplot()
    pictures._bland_altman(chart, comparison())
    points, *lines = sorted(chart.lines, key=lambda line: len(line.get_xdata()), reverse=True)
    np.testing.assert_allclose(points.get_xydata(), [(10.5, 1), (19.5, -1), (31.5, 3)])
    heights = sorted(line.get_ydata()[0] for line in lines)
    assert heights == pytest.approx([1 - 3.92, 0, 1, 1 + 3.92])
    assert chart.get_ylim()[0] < heights[0] and chart.get_ylim()[1] > heights[-1]
    assert [text.get_text() for text in chart.texts] == ["4.92", "\N{MINUS SIGN}2.92", "1"]


def test_a_correlation_chart_shows_both_sides_on_one_scale():
    figure = Figure()
    FigureCanvasAgg(figure)
    chart = figure.add_subplot()
    pictures._correlation(chart, comparison())
    points = next(line for line in chart.lines if line.get_marker() == "o")
    np.testing.assert_allclose(points.get_xydata(), [(10, 11), (20, 19), (30, 33)])
    assert chart.get_xlim() == chart.get_ylim()
    assert chart.get_ylim()[0] < 10 and chart.get_ylim()[1] > 33


def test_agreement_of_several_quantities_two_in_a_row():
    one, two, three = (pictures.agreement([comparison()] * count) for count in (1, 2, 3))
    assert two.shape[1] == 2 * one.shape[1] == three.shape[1]
    assert three.shape[0] == 2 * one.shape[0] == 2 * two.shape[0]
    mixed = pictures.agreement([comparison(colour="#56B4E9"), comparison(colour="#D55E00")])
    columns = {colour: np.flatnonzero(near(mixed, colour).any(axis=0)) for colour in ("#56B4E9", "#D55E00")}
    half = mixed.shape[1] // 2
    assert columns["#56B4E9"].size and columns["#D55E00"].size
    assert columns["#56B4E9"].max() < half <= columns["#D55E00"].min()


@pytest.mark.parametrize("values", [(), (0.0,)])
def test_agreement_of_nothing_and_of_a_single_pair_of_zeros(values):
    drawn = pictures.agreement([comparison(values, values, 0.0 if values else np.nan, np.nan)])
    assert near(drawn, "#D55E00").any() == bool(values)
