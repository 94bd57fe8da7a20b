"""NIfTI files and patients' folders to test with, sound or faulty as asked."""

import gzip

import nibabel
import numpy as np

from tfaug.data.dataset import DataSet
from tfaug.data.readers import acdc


def nifti_bytes(array, spacing=(1.5, 1.25, 8.0), **fields):
    """An uncompressed NIfTI-1 file; `fields` overrides header fields, which nibabel would not let pass."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header["pixdim"][1:4] = spacing
    header["vox_offset"] = 352
    header["scl_slope"], header["scl_inter"] = 1, 0
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + bytes(4) + array.tobytes(order="F")


def write_nifti(path, array, spacing=(1.5, 1.25, 8.0), **fields):
    content = nifti_bytes(array, spacing, **fields)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def sform(spacing, qform_code=1, move=1):
    """Header fields of an sform with this voxel size, moved by an affine map, beside a qform or without one."""
    rows = np.dot(move, np.diag([*spacing, 1.0]))
    return {"qform_code": qform_code, "sform_code": 1, **{f"srow_{axis}": row for axis, row in zip("xyz", rows)}}


def anatomy(seed=0, shape=(20, 23, 3)):
    """An image [X, Y, Z] int16 and a label uint8 that holds every structure."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    x, y = shape[0] // 2, shape[1] // 2
    label[x - 5 : x + 3, y - 6 : y + 6] = 1
    label[x - 3 : x + 5, y - 4 : y + 5] = 2
    label[x - 1 : x + 3, y - 2 : y + 3] = 3
    return (100 * label + rng.integers(20, 120, shape)).astype(np.int16), label


def write_patient(root, case="patient001", seed=0, labelled=True, shape=(20, 23, 3)):
    """A folder with ED as frame 1 and ES as frame 12; the ED image is darker by 7."""
    folder = root / case
    folder.mkdir(parents=True)
    (folder / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n")
    image, label = anatomy(seed, shape)
    for number, frame in ((1, image - 7), (12, image)):
        write_nifti(folder / f"{case}_frame{number:02d}.nii.gz", frame)
        if labelled:
            write_nifti(folder / f"{case}_frame{number:02d}_gt.nii.gz", label)
    return folder


def patients(root, **options):
    """The data set of a folder that `write_patient` filled."""
    reader = acdc.Reader(root, options)
    return DataSet(reader, reader.task())
