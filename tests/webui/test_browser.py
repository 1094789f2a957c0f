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
    """A fresh page; it asks no other host for anything, and no script of it fails."""
    page, hosts, faults = browser.new_page(), set(), []
    page.on('request', lambda request: hosts.add(request.url.split('/')[2]))
    page.on('pageerror', lambda error: faults.append(str(error)))
    page.goto(address)
    page.wait_for_selector('#detect-run')
    yield page
    assert hosts <= {address.split('/')[2], ''}  # blob: has none
    assert faults == []
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
        'blue circle: attention',
        'blue circle: 2 masks',
        'green triangle: attention',
        'green triangle: mask',
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
    page.wait_for_selector('#assign-picture img')
    assert pixels_of(page, '#assign-picture').shape[1] > 6 * 300
