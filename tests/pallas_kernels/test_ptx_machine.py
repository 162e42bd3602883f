"""The machine that executes PTX on a CPU, on a kernel of a few lines: each thread takes a number of its neighbor warp and doubles it."""
import numpy as np
import pytest

from tests.helpers import ptx

KERNEL = """
.visible .entry kernel(
	.param .u64 .ptr .align 256 kernel_param_0,
	.param .u64 .ptr .align 256 kernel_param_1
)
{
	.reg .b32 	%r<9>;
	ld.param.b64 	%rd1, [kernel_param_0];
	ld.param.b64 	%rd2, [kernel_param_1];
	mov.u32 	%r1, %tid.x;
	mad.lo.s32 	%r2, %ctaid.x, 128, %r1;
	mul.wide.u32 	%rd3, %r2, 4;
	add.s64 	%rd4, %rd1, %rd3;
	ld.global.b32 	%r3, [%rd4];
	mul.wide.u32 	%rd5, %r1, 4;
	add.s64 	%rd6, %rd5, __dynamic_shmem__0;
	st.shared.b32 	[%rd6], %r3;
	bar.sync 	1, 128;
	xor.b32 	%r4, %r1, 32;
	mul.wide.u32 	%rd7, %r4, 4;
	add.s64 	%rd8, %rd7, __dynamic_shmem__0;
	ld.shared.b32 	%r5, [%rd8];
	mul.f32 	%r6, %r5, 0f40000000;
	add.s64 	%rd9, %rd2, %rd3;
$L__BB0_1:
	setp.lt.u32 	%p1, %r1, 0;
	@%p1 bra 	$L__BB0_1;
	st.global.b32 	[%rd9], %r6;
	ret;
}
"""


def run(text, numbers=256, shared=512):
    x, y = np.arange(256, dtype=np.float32), np.empty(numbers, np.float32)
    ptx.Machine(ptx.parse(text), [x], [y], (0, 1), 2, shared).run()
    return x, y


def test_result():
    x, y = run(KERNEL)
    np.testing.assert_array_equal(y.reshape(2, 2, 2, 32), 2 * x.reshape(2, 2, 2, 32)[:, :, ::-1])


@pytest.mark.parametrize("old, new, message", [
    ("bar.sync 	1, 128;", "", "another warp wrote since the last barrier"),
    ("st.shared.b32 	[%rd6], %r3;", "", "that nothing wrote"),
    ("%rd9, %rd2, %rd3", "%rd9, %rd1, %rd3", "an input was written"),
    ("%rd9, %rd2, %rd3", "%rd9, %rd2, %rd5", "written twice with different values|two threads wrote"),
    ("%rd3, %r2, 4", "%rd3, %r2, 6", "not a multiple of 4 bytes"),
    ("%ctaid.x, 128", "%ctaid.x, 2147483647", "address|exceeds|place"),
    ("%r1, 0;", "%r1, 64;", "bra: expected all threads"),
    ("mul.f32", "sin.f32", "sin.f32.*not a known instruction"),
    ("[%rd6], %r3", "[%rd6], %r8", "%r8: expected a register with a value"),
], ids=["race", "unwritten", "input", "twice", "alignment", "bounds", "divergence", "unknown", "register"])
def test_faults(old, new, message):
    assert old in KERNEL
    with pytest.raises(ptx.Fault, match=message):
        run(KERNEL.replace(old, new))


def test_small_memory():
    with pytest.raises(ptx.Fault, match="place 255 of 200"):
        run(KERNEL, numbers=200)
    with pytest.raises(ptx.Fault, match="expected words below 256"):
        run(KERNEL, shared=256)
