"""What to use instead of a layer that a phone cannot run well, by the layer's class or the operation it becomes.

Measured where the field notes say so (docs/decisions/0003 and 0010): int8 fidelity, delegate partitions, milliseconds.
"""

from models.steps import Step

MOBILENET_V4 = "an encoder without it, such as mobilenetv4_conv_small_050"
GATE = "squeeze-excite that ends in ReLU6, as patches2_16_32_64_96_se has, or an encoder without any"
# By a part of the class's name of any module around the operation; the first that fits.
BY_CLASS = {
    "SqueezeExcite": GATE,
    "SEModule": GATE,
    "Hardswish": f"ReLU6, exact in int8: {MOBILENET_V4}",
    "HardSwish": f"ReLU6, exact in int8: {MOBILENET_V4}",
    "InstanceNorm": "BatchNorm, which folds into the convolution before it",
    "LayerNorm": "BatchNorm, which folds into the convolution before it",
    "GroupNorm": "BatchNorm, which folds into the convolution before it",
    "ConvTranspose": "bilinear resize and a convolution, or a pixel shuffle",
}
# By what torch, LiteRT or ONNX call the operation.
BY_OPERATION = {
    "HARD_SWISH": f"ReLU6, exact in int8: {MOBILENET_V4}",
    "HardSwish": f"ReLU6, exact in int8: {MOBILENET_V4}",
    "HardSigmoid": GATE,
    "LOGISTIC": f"ReLU6 in the place of what a sigmoid gates: {MOBILENET_V4}",
    "GELU": "ReLU6, exact in int8",
    "Erf": "ReLU6, exact in int8",
    "Tanh": "a clamp to [0,1], as the student ends with",
    "LEAKY_RELU": "ReLU6: leaky ReLU has no int8 form in ai-edge-quantizer",
    "LeakyRelu": "ReLU6",
    "PRELU": "ReLU6: PReLU has no int8 form in ai-edge-quantizer",
    "PRelu": "ReLU6",
    "MEAN": "a mean over the whole picture (AdaptiveAvgPool2d(1)), or none within the network",
    "ReduceMean": "a mean over the whole picture (AdaptiveAvgPool2d(1)), or none within the network",
    "AVERAGE_POOL_2D": f"convolutions of stride 2, no pooling: {MOBILENET_V4}",
    "MAX_POOL_2D": f"convolutions of stride 2, no pooling: {MOBILENET_V4}",
    "PADV2": f"convolutions of stride 2, no pooling with a border of its own: {MOBILENET_V4}",
    "DEPTH_TO_SPACE": "the shuffle as models/litert.py writes it: two reshapes and one transpose",
    "DepthToSpace": "it as the last operation alone, where int8 ends before it",
    "RESIZE_NEAREST_NEIGHBOR": "upsample: bilinear, which stays in the delegate",
    "TRANSPOSE_CONV": "bilinear resize and a convolution, or a pixel shuffle",
    "TRANSPOSE": "layers that keep to one layout; the one transpose of head: pixel-shuffle is meant to be there",
    "CONCATENATION": "skip: add, which moves half as many values",
    "Concat": "skip: add, which moves half as many values",
    "InstanceNormalization": "BatchNorm, which folds into the convolution before it",
}
FULL_RESOLUTION = "head: pixel-shuffle, which works at half the picture's size"
CONTROL_FLOW = "operations that do not look at the values of the picture to decide what to do"
FIXED_SIZE = "operations whose output has the same size whatever the picture shows"
UNKNOWN = "operations of the default student: convolution, BatchNorm, ReLU6, addition, bilinear resize, pixel shuffle"


def instead_of(op: str, step: Step | None) -> str:
    """What to use instead of an operation that stands in this place of the student."""
    for kind in reversed(step.kinds if step else ()):
        for part, advice in BY_CLASS.items():
            if part in kind:
                return advice
    return BY_OPERATION.get(op, UNKNOWN)
