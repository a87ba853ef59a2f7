"""Short vectors in Numba, such as sixteen float32 lanes, that live in registers.

The compiler vectorises only the loops that it recognises, and searches for a least element are not among them. Here the
lanes are explicit: ``load16`` reads sixteen neighbours of an array, operators act on all lanes, and the compiler maps
them to the processor's registers (one with AVX-512, four with SSE or NEON). Every access names its array, so that
NUMBA_BOUNDSCHECK=1 checks these accesses too.
"""

import operator

from llvmlite import ir
from numba.core import cgutils, config, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

__all__ = [
    "address", "bits", "first16", "greatest", "lane_bits", "largest", "least", "load8", "load16", "load_first",
    "load_lanes", "narrow", "numbers16", "smallest", "splat8", "splat16", "splat_as", "splat_lanes", "store", "total",
    "trailing_zeros", "transpose16", "where", "widen",
]  # fmt: skip


class Vector(types.Type):
    """The type of ``lanes`` values of one scalar type; a comparison gives lanes of boolean."""

    def __init__(self, dtype: types.Type, lanes: int):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype} x {lanes})")

    @property
    def real(self) -> bool:
        return isinstance(self.dtype, types.Float)


def _llvm(vector: Vector) -> ir.VectorType:
    scalar = {
        types.float32: ir.FloatType(), types.float64: ir.DoubleType(), types.int32: ir.IntType(32),
        types.int64: ir.IntType(64), types.boolean: ir.IntType(1),
    }[vector.dtype]  # fmt: skip
    return ir.VectorType(scalar, vector.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, _llvm(vector))


# --- operators --------------------------------------------------------------------------------------------------------


def _operator(function, result, lower):
    """Make ``function`` act on two vectors of one type."""

    @infer_global(function)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return signature(result(args[0]), *args)
            return None

    @lower_builtin(function, Vector, Vector)
    def _lowered(context, builder, sig, args):
        return lower(builder, sig.args[0], *args)


def _arithmetic(function, real, whole):
    def lower(builder, vector, x, y):
        return getattr(builder, real)(x, y, flags=("contract",)) if vector.real else getattr(builder, whole)(x, y)

    for either in (function, getattr(operator, f"i{function.__name__}")):
        _operator(either, lambda vector: vector, lower)


def _comparison(function, sign):
    def lower(builder, vector, x, y):
        return builder.fcmp_ordered(sign, x, y) if vector.real else builder.icmp_signed(sign, x, y)

    _operator(function, lambda vector: Vector(types.boolean, vector.lanes), lower)


_arithmetic(operator.add, "fadd", "add")
_arithmetic(operator.sub, "fsub", "sub")
_arithmetic(operator.mul, "fmul", "mul")
_arithmetic(operator.truediv, "fdiv", "sdiv")
_comparison(operator.lt, "<")
_comparison(operator.eq, "==")
_operator(operator.and_, lambda vector: vector, lambda builder, vector, x, y: builder.and_(x, y))
_operator(operator.or_, lambda vector: vector, lambda builder, vector, x, y: builder.or_(x, y))
_operator(operator.xor, lambda vector: vector, lambda builder, vector, x, y: builder.xor(x, y))


# --- memory -----------------------------------------------------------------------------------------------------------


def address(context, builder, array_type, array, k, lanes, element):
    """Return the address of element k of a flat array; if Numba checks bounds, check elements k .. k + lanes - 1."""
    data = context.make_array(array_type)(context, builder, array)
    if config.BOUNDSCHECK:
        end = builder.add(k, lanes if isinstance(lanes, ir.Value) else ir.Constant(k.type, lanes))
        outside = builder.or_(
            builder.icmp_signed("<", k, ir.Constant(k.type, 0)), builder.icmp_signed(">", end, data.nitems)
        )
        with builder.if_then(outside, likely=False):
            context.call_conv.return_user_exc(builder, IndexError, ("a vector reaches outside its array",))
    return builder.bitcast(builder.gep(data.data, [k]), ir.PointerType(element))


def _aligned(array_type):
    return array_type.dtype.bitwidth // 8


def _is_flat(array):
    return isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C"


def _load(array, lanes):
    vector = Vector(array.dtype, lanes)

    def lower(context, builder, sig, args):
        place = address(context, builder, sig.args[0], args[0], args[1], lanes, _llvm(vector))
        return builder.load(place, align=_aligned(array))

    return vector, lower


@intrinsic
def load16(typing, array, k):
    """Return elements k .. k + 15 of a flat array."""
    if not _is_flat(array):
        return None
    vector, lower = _load(array, 16)
    return vector(array, types.intp), lower


@intrinsic
def load8(typing, array, k):
    """Return elements k .. k + 7 of a flat array."""
    if not _is_flat(array):
        return None
    vector, lower = _load(array, 8)
    return vector(array, types.intp), lower


@intrinsic
def load_lanes(typing, array, k, like):
    """Return as many elements from k on as the tuple ``like`` has."""
    if not _is_flat(array):
        return None
    vector, lower = _load(array, len(like))
    return vector(array, types.intp, like), lower


@intrinsic
def load_first(typing, array, k, count):
    """Return elements k .. k + 15 of a flat array; only the first ``count`` are read, the others are 0."""
    if not _is_flat(array):
        return None
    vector = Vector(array.dtype, 16)

    def lower(context, builder, sig, args):
        array, k, count = args
        given = _clamp(builder, count, 16)
        nothing = ir.Constant(k.type, 0)
        k = builder.select(builder.icmp_signed(">", given, nothing), k, nothing)  # stay inside the array
        place = address(context, builder, sig.args[0], array, k, given, _llvm(vector))
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(_llvm(vector), [place.type, ir.IntType(32), _MASK16, _llvm(vector)]),
            f"llvm.masked.load.v16f{vector.dtype.bitwidth}.p0",
        )
        align = ir.Constant(ir.IntType(32), _aligned(sig.args[0]))
        zeros = ir.Constant(_llvm(vector), [0.0] * 16)
        return builder.call(function, [place, align, _first16(builder, count), zeros])

    return vector(array, types.intp, types.intp), lower


@intrinsic
def store(typing, array, k, vector):
    """Write a vector to elements k and following of a flat array."""
    if not (_is_flat(array) and isinstance(vector, Vector) and vector.dtype == array.dtype):
        return None

    def lower(context, builder, sig, args):
        place = address(context, builder, sig.args[0], args[0], args[1], vector.lanes, _llvm(vector))
        builder.store(args[2], place, align=_aligned(array))
        return context.get_dummy_value()

    return types.none(array, types.intp, vector), lower


@intrinsic
def transpose16(typing, given, k, step, result, at, width):
    """Transpose a block of 16 rows and columns. Modifies result.

    Row r of ``given`` begins at k + r * step, row c of ``result`` at at + c * width.
    """
    if not (_is_flat(given) and given == result):
        return None
    kind = _llvm(Vector(given.dtype, 16))

    def lower(context, builder, sig, args):
        given, k, step, result, at, width = args
        rows = []
        for _ in range(16):
            rows.append(builder.load(address(context, builder, sig.args[0], given, k, 16, kind), align=4))
            k = builder.add(k, step)
        places = ir.VectorType(ir.IntType(32), 16)
        low = ir.Constant(places, [x for lane in range(8) for x in (lane, lane + 16)])
        high = ir.Constant(places, [x for lane in range(8, 16) for x in (lane, lane + 16)])
        for _ in range(4):  # four perfect shuffles of 256 elements turn rows into columns
            rows = [builder.shuffle_vector(rows[r], rows[r + 8], half) for r in range(8) for half in (low, high)]
        for row in rows:
            builder.store(row, address(context, builder, sig.args[3], result, at, 16, kind), align=4)
            at = builder.add(at, width)
        return context.get_dummy_value()

    return types.none(given, types.intp, types.intp, result, types.intp, types.intp), lower


# --- making and reducing ----------------------------------------------------------------------------------------------


def _splat(builder, scalar, lanes):
    empty = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))


_MASK16 = ir.VectorType(ir.IntType(1), 16)


def _clamp(builder, count, most):
    """Return a count, limited to 0 .. most."""
    for sign, bound in (("<", 0), (">", most)):
        bound = ir.Constant(count.type, bound)
        count = builder.select(builder.icmp_signed(sign, count, bound), bound, count)
    return count


def _first16(builder, count):
    numbers = ir.Constant(ir.VectorType(ir.IntType(32), 16), list(range(16)))
    count = builder.trunc(_clamp(builder, count, 16), ir.IntType(32))
    return builder.icmp_signed("<", numbers, _splat(builder, count, 16))


@intrinsic
def first16(typing, count):
    """Return a mask of sixteen lanes that is true in the first ``count``: in none below 0, in all from 16 on."""
    mask = Vector(types.boolean, 16)
    return mask(types.intp), lambda context, builder, sig, args: _first16(builder, args[0])


@intrinsic
def numbers16(typing):
    """Return 0 .. 15 as int32 lanes."""
    vector = Vector(types.int32, 16)
    return vector(), lambda context, builder, sig, args: ir.Constant(_llvm(vector), list(range(16)))


@intrinsic
def splat16(typing, scalar):
    """Return one number in sixteen lanes."""
    return Vector(scalar, 16)(scalar), lambda context, builder, sig, args: _splat(builder, args[0], 16)


@intrinsic
def splat8(typing, scalar):
    """Return one number in eight lanes."""
    return Vector(scalar, 8)(scalar), lambda context, builder, sig, args: _splat(builder, args[0], 8)


@intrinsic
def splat_lanes(typing, scalar, like):
    """Return one number in as many lanes as the tuple ``like`` has entries."""
    lanes = len(like)
    return Vector(scalar, lanes)(scalar, like), lambda context, builder, sig, args: _splat(builder, args[0], lanes)


@intrinsic
def splat_as(typing, number, array):
    """Return one number in sixteen lanes of an array's type."""
    vector = Vector(array.dtype, 16)

    def lower(context, builder, sig, args):
        return _splat(builder, context.cast(builder, args[0], sig.args[0], vector.dtype), 16)

    return vector(number, array), lower


@intrinsic
def where(typing, mask, x, y):
    """Return x in the lanes where the mask is true, y in the others."""
    return x(mask, x, y), lambda context, builder, sig, args: builder.select(*args)


def _choice(sign):
    def lower(context, builder, sig, args):
        x, y = args
        compare = builder.fcmp_ordered if sig.return_type.real else builder.icmp_signed
        return builder.select(compare(sign, x, y), x, y)

    return lower


@intrinsic
def least(typing, x, y):
    """Return the lesser in each lane; y if either is NaN."""
    return x(x, y), _choice("<")


@intrinsic
def greatest(typing, x, y):
    """Return the greater in each lane; y if either is NaN."""
    return x(x, y), _choice(">")


def _reduction(name, start, flags):
    def typed(vector):
        def lower(context, builder, sig, args):
            kind, scalar = _llvm(vector), _llvm(vector).element
            full = f"llvm.vector.reduce.{name}.v{vector.lanes}f{vector.dtype.bitwidth}"
            before = [ir.Constant(scalar, start)] if start is not None else []
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(scalar, [scalar] * len(before) + [kind]), full
            )
            return builder.call(function, [*before, args[0]], fastmath=flags)

        return vector.dtype(vector), lower

    return typed


@intrinsic
def smallest(typing, vector):
    """Return the least of all lanes, which must contain no NaN."""
    return _reduction("fmin", None, ("nnan", "nsz"))(vector)


@intrinsic
def largest(typing, vector):
    """Return the greatest of all lanes, which must contain no NaN."""
    return _reduction("fmax", None, ("nnan", "nsz"))(vector)


@intrinsic
def total(typing, vector):
    """Return the sum of all lanes, added in any order."""
    return _reduction("fadd", -0.0, ("reassoc",))(vector)


@intrinsic
def bits(typing, mask):
    """Return a mask as a number: bit k is lane k."""

    def lower(context, builder, sig, args):
        whole = builder.bitcast(args[0], ir.IntType(mask.lanes))
        return builder.zext(whole, ir.IntType(64)) if mask.lanes < 64 else whole

    return types.int64(mask), lower


@intrinsic
def trailing_zeros(typing, word):
    """Return the position of the lowest bit set in a word, which must not be 0."""

    def lower(context, builder, sig, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), lower


@intrinsic
def lane_bits(typing, word, like):
    """Return the lowest bits of a word as a mask with as many lanes as the vector ``like``."""
    mask = Vector(types.boolean, like.lanes)

    def lower(context, builder, sig, args):
        return builder.bitcast(builder.trunc(args[0], ir.IntType(like.lanes)), _llvm(mask))

    return mask(types.int64, like), lower


@intrinsic
def narrow(typing, vector):
    """Return float64 lanes rounded to float32."""
    result = Vector(types.float32, vector.lanes)
    return result(vector), lambda context, builder, sig, args: builder.fptrunc(args[0], _llvm(result))


@intrinsic
def widen(typing, vector):
    """Return float32 or float64 lanes as float64."""
    result = Vector(types.float64, vector.lanes)
    if vector == result:
        return result(vector), lambda context, builder, sig, args: args[0]
    return result(vector), lambda context, builder, sig, args: builder.fpext(args[0], _llvm(result))
