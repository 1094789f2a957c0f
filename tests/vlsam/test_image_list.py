"""The data set of open-ended detection: images without annotations, read as people see them."""

import json

import numpy as np
import pytest
from PIL import Image

from atss_ext.datasets.checks import DataError
from atss_ext.vlsam.image_list import ImageList, ReadUpright


def write(path, size=(20, 12), value=80, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, (value, 0, 200)).save(path, **options)


def test_a_folder_in_natural_order(tmp_path):
    for name in ('10.png', '9.png', 'deep/1.png', 'notes.txt'):
        if name.endswith('png'):
            write(tmp_path / name)
        else:
            (tmp_path / name).write_text('x')
    data = ImageList(data_root=str(tmp_path), data_prefix={'img': ''}, test_mode=True)
    assert [data.get_data_info(i)['img_id'] for i in range(len(data))] == [1, 2, 3]
    names = [data.get_data_info(i)['img_path'].removeprefix(f'{tmp_path}/') for i in range(len(data))]
    assert names == ['9.png', '10.png', 'deep/1.png']


def test_a_file_of_coco_and_one_of_lvis(tmp_path):
    """LVIS names its images by their address; annotations and categories are not even read."""
    write(tmp_path / 'val2017/000000000139.png')
    images = [
        {'id': 139, 'file_name': 'val2017/000000000139.png'},
        {'id': 140, 'coco_url': 'http://images.cocodataset.org/val2017/000000000139.png'},
    ]
    content = {'images': images, 'annotations': 'none of your business', 'categories': None}
    (tmp_path / 'a.json').write_text(json.dumps(content))
    data = ImageList(ann_file='a.json', data_root=str(tmp_path), data_prefix={'img': ''}, test_mode=True)
    rows = [data.get_data_info(i) for i in range(2)]
    assert [row['img_id'] for row in rows] == [139, 140]
    assert {row['img_path'] for row in rows} == {f'{tmp_path}/val2017/000000000139.png'}
    assert set(rows[0]) == {'img_id', 'img_path', 'file_name', 'sample_idx'}


@pytest.mark.parametrize(
    ('images', 'words'),
    [
        ([{'id': 1, 'file_name': 'gone.png'}], 'missing, first .*gone.png'),
        ([{'id': 1}], "neither 'file_name' nor 'coco_url'"),
        ([{'file_name': 'a.png'}], 'has no id'),
        ([], 'holds no image'),
    ],
)
def test_what_is_missing_is_said_before_the_run(tmp_path, images, words):
    (tmp_path / 'a.json').write_text(json.dumps({'images': images}))
    with pytest.raises(DataError, match=words):
        ImageList(ann_file='a.json', data_root=str(tmp_path), data_prefix={'img': ''}, test_mode=True)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r'gone does not exist'):
        ImageList(data_root=str(tmp_path / 'gone'), data_prefix={'img': ''}, test_mode=True)


def test_images_are_upright_reduced_and_bgr(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    write(tmp_path / 'a.png', size=(40, 24), exif=exif)
    results = ReadUpright(max_side=20).transform({'img_path': str(tmp_path / 'a.png')})
    assert results['ori_shape'] == (40, 24)
    assert results['img_shape'] == (20, 12)
    assert results['scale_factor'] == (0.5, 0.5)
    assert results['img'].tolist() == np.full((20, 12, 3), (200, 0, 80), np.uint8).tolist()
    assert 'vlsam_error' not in results


def test_an_image_that_cannot_be_read_leaves_its_reason(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'nothing')
    results = ReadUpright().transform({'img_path': str(tmp_path / 'a.png')})
    assert 'a.png' in results['vlsam_error']
    assert results['img'].shape == (8, 8, 3)
