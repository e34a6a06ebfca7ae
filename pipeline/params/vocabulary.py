"""The words that everybody uses: pixel labels, and the choices that params.yaml and commands offer."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

BACKGROUND: Final = 0
FOREGROUND: Final = 1
IGNORE: Final = 255

PIXEL_LABELS: Final = {"background": BACKGROUND, "foreground": FOREGROUND, "ignore": IGNORE}
TWO_PIXEL_CLASSES: Final = ("background", "foreground")


class Tissue(StrEnum):
    """What a synthetic domain shows."""

    COLON = "colon"
    LYMPH_NODE = "lymph_node"


class Laboratory(StrEnum):
    """Where a synthetic domain was stained and scanned; see `pipeline.synthetic.stains`."""

    HOME = "home"
    AWAY = "away"


class SharedPatients(StrEnum):
    """What to do with a patient on both sides of a split."""

    REJECT = "reject"
    ALLOW = "allow"


class AnnotationRole(StrEnum):
    """What the polygons of a group of an annotation file mark: a lesion, or what is cut out of lesions."""

    LESION = "lesion"
    HOLE = "hole"


class EncoderWeights(StrEnum):
    """What an encoder starts from; `auto` takes pretrained weights where they can be had."""

    AUTO = "auto"
    PRETRAINED = "pretrained"
    RANDOM = "random"


class ImageHeadName(StrEnum):
    """How the image head turns a feature map into class logits; see `pipeline.encoders.image_heads`."""

    GAP = "gap"
    MAX = "max"
    LSE = "lse"
    WILDCAT = "wildcat"
    DEEPMIL = "deepmil"
    TSCAM = "tscam"
    SAT = "sat"


class PixelHeadName(StrEnum):
    """How the pixel head turns feature maps into pixel logits; see `pipeline.encoders.pixel_heads`."""

    LINEAR = "linear"
    HYPERCOLUMN = "hypercolumn"
    DECODER = "decoder"


class PixelClasses(StrEnum):
    """What pixels of a region of interest are called: foreground, whatever the image shows, or by the image's class."""

    FOREGROUND = "foreground"
    IMAGE_CLASSES = "image_classes"


def name_pixel_classes(pixel_classes: PixelClasses, classes: Sequence[str]) -> tuple[str, ...]:
    """Return what pixels are told apart as, in the order of their labels, which is that of a pixel head's logits.

    With image classes the label of a foreground pixel is 1 + `class_idx`.

    Args:
        pixel_classes: which of the two.
        classes: names of the image classes, in the order of their index.
    """
    return TWO_PIXEL_CLASSES if pixel_classes is PixelClasses.FOREGROUND else ("background", *classes)


class OptimizerName(StrEnum):
    """Plain gradient descent; SGD has Nesterov momentum 0.9, which one_cycle moves between 0.85 and 0.95."""

    ADAMW = "adamw"
    SGD = "sgd"


class Schedule(StrEnum):
    """How the learning rate changes over the steps."""

    ONE_CYCLE = "one_cycle"
    COSINE = "cosine"
    CONSTANT = "constant"


class Selection(StrEnum):
    """Which epoch's weights become the model; `val_pxap` alone looks at masks, those of a few validation images."""

    LAST = "last"
    VAL_ACCURACY = "val_accuracy"
    VAL_LOSS = "val_loss"
    VAL_PXAP = "val_pxap"


class Weights(StrEnum):
    """Which weights of a model are scored: those selected, or those that another selection would have given."""

    SELECTED = "selected"
    LAST = "last"
    VAL_ACCURACY = "val_accuracy"
    VAL_LOSS = "val_loss"
    VAL_PXAP = "val_pxap"


class Frozen(StrEnum):
    """What of the encoder stays as it is while training: nothing, its batch-norm statistics, or all of it."""

    NOTHING = "nothing"
    BATCH_NORM = "batch_norm"
    ENCODER = "encoder"


class Regularization(StrEnum):
    """What is hidden from a teacher while it trains, so that it learns to look at more than the most telling part."""

    NONE = "none"
    HAS = "has"
    CUTMIX = "cutmix"
    ADL = "adl"


class CamMethod(StrEnum):
    """How a classifier becomes a CAM; see `pipeline.cams.methods`."""

    CAM = "cam"
    GRADCAM = "gradcam"
    GRADCAM_PP = "gradcam++"
    SMOOTH_GRADCAM_PP = "smooth_gradcam++"
    XGRADCAM = "xgradcam"
    HIRESCAM = "hirescam"
    LAYERCAM = "layercam"
    SCORECAM = "scorecam"
    EIGENCAM = "eigencam"
    ROLLOUT = "rollout"
    TSCAM = "tscam"
    SAT = "sat"


class ForegroundRule(StrEnum):
    """What makes a pixel foreground: a fixed threshold of the CAM, Otsu's for each image, or a share of the image."""

    THRESHOLD = "threshold"
    OTSU = "otsu"
    PERCENTILE = "percentile"


class Refinement(StrEnum):
    """How a map is refined by the image's edges before it is cut; see `pipeline.pseudo_labels.refinement`."""

    NONE = "none"
    PAMR = "pamr"
    RANDOM_WALK = "random_walk"
    SLIC = "slic"


class Approach(StrEnum):
    """How the pixel head is trained: PixelCAM's joint training, or a baseline to compare it with."""

    JOINT = "joint"
    TWO_STEP = "two_step"
    NEGEV = "negev"
    SUPERVISED = "supervised"


class Initialization(StrEnum):
    """What PixelCAM's encoder starts from."""

    TEACHER = "teacher"
    ENCODER_WEIGHTS = "encoder_weights"


class Drawing(StrEnum):
    """With which probability a foreground pixel is drawn: in proportion to its CAM, or all alike."""

    CAM = "cam"
    UNIFORM = "uniform"


class LossResolution(StrEnum):
    """Where the pixel loss is taken: at image pixels, or at cells of the feature map."""

    FULL = "full"
    FEATURE = "feature"


class TestTime(StrEnum):
    """What is done to the images, or to the model, of a domain before it is scored there, without any label of it."""

    __test__ = False  # it is no test, whatever its name begins with

    NONE = "none"
    MACENKO = "macenko"
    REINHARD = "reinhard"
    BATCH_NORM = "batch_norm"


class UnsupervisedScore(StrEnum):
    """What says without a label how well a model suits a domain; see `pipeline.adaptation.watching`."""

    MUTUAL_INFORMATION = "mutual_information"


class AdaptationMethod(StrEnum):
    """How a model is brought to a domain's images without their labels; see `pipeline.adaptation.methods`."""

    BATCH_NORM = "batch_norm"
    TENT = "tent"
    SHOT = "shot"
    LABEL_SHIFT = "label_shift"
    SELF_TRAINING = "self_training"
    SFDA_DEP = "sfda_dep"


class AdaptedTo(StrEnum):
    """Which images of a domain a model is adapted to.

    Those that no score is made of (inductive), or the very ones that are scored (transductive), still without labels.
    """

    TRAIN_AND_VAL = "train_and_val"
    TEST = "test"


class BatchNormStatistics(StrEnum):
    """What batch norm normalizes by while a model is adapted: what it learned with, or what the images have."""

    SOURCE = "source"
    TARGET = "target"


class Evidence(StrEnum):
    """What speaks for an image's class: the image head, or the share of its map that is foreground."""

    IMAGE_HEAD = "image_head"
    PIXELS = "pixels"


class ThresholdRule(StrEnum):
    """How the threshold of each model's maps is chosen: by the source's validation masks, or by its maps alone."""

    VALIDATION_MASKS = "validation_masks"
    MASK_FREE = "mask_free"


class MapFormat(StrEnum):
    """How the map of an image is written; see `pipeline.evaluation.map_files`."""

    NPY = "npy"
    PNG = "png"
    ZARR = "zarr"


class ExportFormat(StrEnum):
    """What a trained model leaves as; see `pipeline.export`."""

    ONNX = "onnx"
    TORCH_EXPORT = "torch-export"
    BIOIMAGEIO = "bioimageio"
    WEB = "web"
