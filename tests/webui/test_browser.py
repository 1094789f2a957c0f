"""The page in a real Chromium: what people do, and what they get."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from ports import free_port
from tiny_coco import REPO, environment

pytestmark = pytest.mark.browser

FLAGS = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
]
PATIENCE = 120_000  # milliseconds
STRIDES = [8, 16, 32, 64, 128]
RESULTS = {'#detect': '#detect-picture', '#discover': '#discover-gallery', '#assign': '#assign-gallery'}


def chromium() -> str:
    found = os.environ.get('CHROMIUM') or shutil.which('chromium') or shutil.which('google-chrome')
    assert found, 'Chromium is needed: apt-get install chromium, or name one in the variable CHROMIUM'
    return found


@pytest.fixture(scope='module')
def address(shelf, tmp_path_factory):
    """The command as people start it, in a process of its own."""
    command = [sys.executable, str(REPO / 'tools/webui.py'), '--port', free_port()]
    command += ['--max-megabytes', '1']
    command += ['--config', str(shelf.config), '--checkpoint', str(shelf.weights), str(shelf.other_weights)]
    command += ['--assign', str(shelf.iou_config)]
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    kept = tmp_path_factory.mktemp('kept')
    run = subprocess.Popen(command, cwd=shelf.root, env=environment(TMPDIR=str(kept)), **pipes)
    line = run.stdout.readline()
    assert line.startswith('the page is at http://127.0.0.1:'), line + run.stderr.read()
    yield line.split()[4]
    run.terminate()
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 0, errors
    assert 'Traceback' not in errors
    assert not list(kept.glob('atss_ext_webui_*'))  # what was sent ends with the server


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        profile = tmp_path_factory.mktemp('profile')
        browser = playwright.chromium.launch_persistent_context(
            str(profile), executable_path=chromium(), args=FLAGS, viewport={'width': 1360, 'height': 1000}
        )
        browser.set_default_timeout(PATIENCE)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """A fresh page; it asks no other host for anything, misses nothing, and no script of it fails."""
    page, hosts, faults, missing = browser.new_page(), set(), [], []
    page.on('request', lambda request: hosts.add(request.url.split('/')[2]))
    page.on('response', lambda answer: missing.append(answer.url) if answer.status == 404 else None)
    page.on('pageerror', lambda error: faults.append(str(error)))
    page.goto(address)
    page.wait_for_selector('#detect-run')
    yield page
    assert hosts <= {address.split('/')[2], ''}  # blob: has none
    assert faults == []
    assert missing == []
    assert 'Traceback' not in page.inner_text('body')
    page.close()


def open_tab(page, name: str) -> None:
    page.get_by_role('tab', name=name).click()


def press(page, button: str, answer: str = '.answer:visible') -> str:
    """Press a button and wait for another sentence; it is returned."""
    before = page.inner_text(answer)
    page.click(button)
    page.wait_for_function(
        '([selector, before]) => [...document.querySelectorAll(".answer")].some('
        'one => one.checkVisibility() && one.innerText !== before)',
        arg=[answer, before],
    )
    return page.inner_text(answer)


def send(page, path: str) -> None:
    """Choose a file in the image field of the open tab."""
    page.set_input_files('.upload:visible input[type=file]', path)
    page.wait_for_selector('.upload:visible img, .upload:visible .image-frame')


def set_threshold(page, value: str) -> None:
    field = page.locator('input[type=number]:visible').first
    field.fill(value)
    field.press('Tab')


def download(page, button: str) -> tuple[str, object]:
    """Name and content of the json behind a button."""
    page.wait_for_selector(f'{button}:not([disabled])')
    with page.expect_download() as started:
        page.click(button)
    return started.value.suggested_filename, json.loads(Path(started.value.path()).read_text())


def rows_of(page, table: str) -> list[list[str]]:
    cells = page.locator(f'{table} [role=row] [role=gridcell]')
    cells.first.wait_for()
    rows: dict[str, list[str]] = {}
    for cell in cells.all():
        rows.setdefault(cell.get_attribute('aria-rowindex'), []).append(cell.inner_text().strip())
    return list(rows.values())


def captions_of(page, gallery: str) -> list[str]:
    page.locator(f'{gallery} .caption-label').first.wait_for()
    return [words.strip() for words in page.locator(f'{gallery} .caption-label').all_inner_texts()]


def pixels_of(page, image: str) -> np.ndarray:
    """RGB of a picture as the browser got it."""
    answer = page.request.get(page.get_attribute(f'{image} img', 'src'))
    decoded = cv2.imdecode(np.frombuffer(answer.body(), np.uint8), cv2.IMREAD_COLOR)
    return decoded[..., ::-1].astype(int)


def test_upload_detect_see_boxes_and_download_what_the_model_returns(page, shelf):
    from mmdet.apis import inference_detector, init_detector

    send(page, shelf.image())
    set_threshold(page, '0')
    sentence = press(page, '#detect-run')
    assert sentence.startswith('5 objects with a score of 0 or more: ')
    name, results = download(page, '#detect-file')
    assert name == 'val_0.results.json'
    model = init_detector(str(shelf.config), str(shelf.weights), device='cpu')
    expected = inference_detector(model, shelf.image()).pred_instances
    order = expected.scores.argsort(descending=True).tolist()
    assert [one['category_id'] for one in results] == [(17, 4)[expected.labels[i]] for i in order]
    np.testing.assert_allclose([one['score'] for one in results], expected.scores[order], rtol=1e-6)
    corners = expected.bboxes[order].numpy().astype(float)
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    np.testing.assert_allclose([one['bbox'] for one in results], sides, rtol=1e-5, atol=1e-4)
    rows = rows_of(page, '#detect-table')
    assert [row[0] for row in rows] == [one['category_name'] for one in results]
    assert [float(row[1]) for row in rows] == pytest.approx([one['score'] for one in results], abs=6e-4)
    page.wait_for_selector('#detect-picture img')
    picture = pixels_of(page, '#detect-picture')
    plain = cv2.resize(cv2.imread(shelf.image()), (560, 560), interpolation=cv2.INTER_CUBIC)[..., ::-1]
    changed = np.abs(picture - plain).max(axis=2) > 40
    for x1, y1, x2, y2 in np.clip(np.rint(corners * 560 / 64), 0, 559).astype(int).tolist():
        assert changed[(y1 + y2) // 2, max(0, x1 - 1) : x1 + 2].any()
        assert changed[(y1 + y2) // 2, x2 - 2 : x2 + 2].any()
        assert changed[y2 - 2 : y2 + 2, (x1 + x2) // 2].any()


def test_what_cannot_be_done_is_one_sentence(page, shelf, tmp_path):
    (tmp_path / 'damaged.png').write_bytes(b'\x89PNG\r\n\x1a\nrubbish')
    page.set_input_files('.upload:visible input[type=file]', str(tmp_path / 'damaged.png'))
    page.wait_for_selector('.upload:visible [aria-label="Remove Image"]')
    sentence = press(page, '#detect-run')
    assert (
        sentence == 'Image damaged.png is no image of a known format, or its beginning is damaged; replace it'
    )
    page.click('.upload:visible [aria-label="Remove Image"]')
    send(page, shelf.image())
    page.click('#detect-checkpoint input')
    page.get_by_role('option', name='other.pth').click()
    sentence = press(page, '#detect-run')
    assert 'other.pth is not of this config' in sentence
    assert page.locator('#detect-file').is_disabled()
    page.click('.upload:visible [aria-label="Remove Image"]')
    (tmp_path / 'large.png').write_bytes(bytes(2**20 + 1))
    page.set_input_files('.upload:visible input[type=file]', str(tmp_path / 'large.png'))
    page.get_by_text('exceed the maximum allowed size').wait_for()


def test_the_small_world_is_discovered_at_once(page):
    open_tab(page, 'Discover')
    page.get_by_role('button', name='Draw an example of the small world').click()
    page.wait_for_selector('.upload:visible img')
    sentence = press(page, '#discover-run')
    assert sentence == '3 objects with a score of 0.3 or more: blue circle (2), green triangle (1).'
    captions = page.locator('#discover-gallery .caption-label')
    captions.first.wait_for()
    assert [words.strip() for words in captions.all_inner_texts()] == [
        'attention: blue circle',
        '2 masks: blue circle',
        'attention: green triangle',
        'mask: green triangle',
    ]
    assert page.locator('#discover-gallery .caption-label').first.is_visible()
    name, content = download(page, '#discover-file')
    assert name == 'example_0.coco.json'
    assert [one['name'] for one in content['annotations']] == [
        row[0] for row in rows_of(page, '#discover-table')
    ]
    assert all(one['segmentation']['size'] == [64, 64] for one in content['annotations'])


def test_boxes_typed_in_show_which_priors_become_positive(page, shelf):
    open_tab(page, 'Assignment')
    send(page, shelf.image())
    page.fill('#assign-boxes textarea', '9 11 40 34 box\n70 1 2 3')
    assert press(page, '#assign-run').startswith("The box of line 2 is '70 1 2 3'; corners must be ordered")
    page.fill('#assign-boxes textarea', '9 11 40 34 box')
    sentence = press(page, '#assign-run')
    assert 'iou (MaxIoUAssigner): 0 positives for 1 object, 1 with none.' in sentence
    rows = {row[0]: row for row in rows_of(page, '#assign-table')}
    assert rows['iou'][1:] == ['1 box', '-', '0', '0', '0', '0', '0', '0']
    positives = int(rows['tiny'][-1])
    assert positives > 0
    assert f'tiny (ATSSAssigner): {positives} positives for 1 object, 0 with none.' in sentence
    page.wait_for_selector('#assign-compared img')
    assert captions_of(page, '#assign-gallery') == ['objects', *(f'stride {s}: 0 positives' for s in STRIDES)]
    counts = [words.split()[2] for words in captions_of(page, '#assign-compared')[1:]]
    assert counts == rows['tiny'][3:8]
    assert pixels_of(page, '#assign-gallery').shape == (360, 360, 3)
    with page.expect_download() as started:
        page.click('#assign-file')
    assert started.value.suggested_filename == 'val_0.assignment.png'
    assert cv2.imread(str(started.value.path())).shape[1] > 6 * 360


def test_no_results_stay_beside_another_image(page, shelf):
    """In every tab: neither those that are shown, nor those that are still on their way."""
    send(page, shelf.image())
    set_threshold(page, '0')
    press(page, '#detect-run')
    assert_filled(page, '#detect')
    page.click('.upload:visible [aria-label="Remove Image"]')
    assert_empty(page, '#detect', 'Send an image and press Detect.')
    for tab, example in (
        ('#discover', 'Draw an example of the small world'),
        ('#assign', 'Draw an example with boxes'),
    ):
        open_tab(page, {'#discover': 'Discover', '#assign': 'Assignment'}[tab])
        start = page.inner_text('.answer:visible')
        page.get_by_role('button', name=example).click()
        page.wait_for_selector('.upload:visible img')
        press(page, f'{tab}-run')
        assert_filled(page, tab)
        page.get_by_role('button', name=example).click()
        assert_empty(page, tab, start)


def test_results_on_their_way_are_not_shown_beside_another_image(page):
    open_tab(page, 'Discover')
    example = page.get_by_role('button', name='Draw an example of the small world')
    example.click()
    page.wait_for_selector('.upload:visible img')
    first = page.get_attribute('.upload:visible img', 'src')
    page.get_by_label('Thorough').click()
    page.click('#discover-run')
    page.wait_for_selector('#discover-picture .wrap:not(.hide)')  # it is being computed
    example.click()
    page.wait_for_function(
        'src => ![...document.querySelectorAll(".upload img")].some(one => one.src === src)', arg=first
    )
    page.get_by_label('Quick').click()
    # The sentence of the first example, of three objects, would come before.
    assert press(page, '#discover-run') == '1 object with a score of 0.3 or more: blue circle (1).'
    page.wait_for_selector('#discover-gallery img')
    assert captions_of(page, '#discover-gallery') == ['attention: blue circle', 'mask: blue circle']


def assert_filled(page, tab: str) -> None:
    page.wait_for_selector(f'{tab}-file:not([disabled])')
    page.locator(f'{tab}-table [role=row] [role=gridcell]').first.wait_for()
    assert page.locator(f'{RESULTS[tab]} img').count() > 0


def assert_empty(page, tab: str, sentence: str) -> None:
    page.wait_for_selector(f'{tab}-file[disabled]')
    page.wait_for_function(
        'words => [...document.querySelectorAll(".answer")].some('
        'one => one.checkVisibility() && one.innerText === words)',
        arg=sentence,
    )
    page.wait_for_function('results => !document.querySelector(results)', arg=f'{RESULTS[tab]} img')
    cells = page.locator(f'{tab}-table [role=row] [role=gridcell]')
    assert [words for words in cells.all_inner_texts() if words.strip()] == []


@pytest.fixture
def phone(page):
    page.set_viewport_size({'width': 400, 'height': 800})
    page.reload()
    page.wait_for_selector('#detect-run')
    yield page
    page.set_viewport_size({'width': 1360, 'height': 1000})


def test_on_a_phone_everything_is_there_and_can_be_read(phone, shelf):
    send(phone, shelf.image())
    set_threshold(phone, '0')
    press(phone, '#detect-run')
    assert_whole(phone, '#detect-picture')
    open_tab(phone, 'Discover')  # each lies behind no other button
    phone.get_by_role('button', name='Draw an example of the small world').click()
    phone.wait_for_selector('.upload:visible img')
    press(phone, '#discover-run')
    assert_whole(phone, '#discover-picture')
    assert_large(phone, '#discover-gallery')
    open_tab(phone, 'Assignment')
    phone.get_by_role('button', name='Draw an example with boxes').click()
    phone.wait_for_selector('.upload:visible img')
    press(phone, '#assign-run')
    for gallery in ('#assign-gallery', '#assign-compared'):
        assert_large(phone, gallery)
        cut = 'all => all.map(one => one.scrollWidth - one.clientWidth)'
        assert max(phone.eval_on_selector_all(f'{gallery} .caption-label', cut)) <= 0
    assert phone.evaluate('document.documentElement.scrollWidth') <= 400


def assert_whole(page, picture: str) -> None:
    """Nothing of the field is blank, but for a line around it."""
    page.wait_for_selector(f'{picture} img')
    page.wait_for_function('picture => document.querySelector(picture).complete', arg=f'{picture} img')
    sizes = [page.locator(place).bounding_box() for place in (picture, f'{picture} img')]
    for side in ('width', 'height'):
        assert sizes[0][side] - sizes[1][side] <= 8, sizes


def assert_large(page, gallery: str) -> None:
    """Two pictures a row, and all rows without scrolling."""
    page.wait_for_selector(f'{gallery} img')
    widths = [image.bounding_box()['width'] for image in page.locator(f'{gallery} img').all()]
    assert min(widths) > 140
    hidden = '([one]) => one.scrollHeight - one.clientHeight'
    assert page.eval_on_selector_all(f'{gallery} .grid-wrap', hidden) <= 0
