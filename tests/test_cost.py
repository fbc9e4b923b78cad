"""Operations and collectives, counted by the compiler or by hand."""

import jax
import jax.numpy as jnp
import pytest

from cwjax.training.cost import count_collectives, count_products


def test_products_are_those_of_the_compiler() -> None:
    """Of a program without loops, whose operations XLA counts right, but for its cheap elementwise ones."""

    def program(image, kernel, left, right):
        convolved = jax.lax.conv_general_dilated(image, kernel, (2,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
        return convolved.sum() + jnp.einsum("bij,bjk->bik", left, right).sum()

    shapes = [(4, 64, 32), (3, 32, 48), (5, 40, 60), (5, 60, 70)]
    arrays = [jnp.ones(shape) for shape in shapes]
    counted = count_products(jax.make_jaxpr(program)(*arrays).jaxpr)
    compiled = jax.jit(program).lower(*arrays).compile().cost_analysis()["flops"]
    # The compiler leaves out what the convolution multiplies with its padding.
    assert counted.operations == pytest.approx(compiled, rel=0.03)


def test_loops_branches_and_gradients_count_as_often_as_they_run() -> None:
    square = jnp.ones((16, 16))
    once = 2 * 16**3

    def repeated(x):
        return jax.lax.scan(lambda x, _: (x @ square, None), x, length=7)[0]

    def operations(function) -> float:
        return count_products(jax.make_jaxpr(function)(square).jaxpr).operations

    assert operations(repeated) == 7 * once
    assert operations(jax.jit(repeated)) == 7 * once
    assert operations(jax.grad(lambda x: repeated(x).sum())) == 14 * once
    assert operations(lambda x: jax.lax.cond(x[0, 0] > 0, repeated, lambda x: x, x)) == 7 * once
    recomputed = jax.checkpoint(lambda x: jnp.sin(x @ square) @ square)
    assert operations(jax.grad(lambda x: recomputed(x).sum())) >= 5 * once


def test_the_roofline_is_the_slower_of_computing_and_moving() -> None:
    jaxpr = jax.make_jaxpr(lambda x, y: x @ y)(jnp.ones((64, 32)), jnp.ones((32, 128))).jaxpr
    operations, moved = 2 * 64 * 32 * 128, 4 * (64 * 32 + 32 * 128 + 64 * 128)
    assert count_products(jaxpr, 1e6, 1e12).seconds == pytest.approx(operations / 1e6)
    assert count_products(jaxpr, 1e12, 1e3).seconds == pytest.approx(moved / 1e3)


HLO = """HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused (p: bf16[8,64]) -> bf16[32,64] {
  %p = bf16[8,64]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[32,64]{1,0:T(8,128)} all-gather(%p), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
}

%fused.stage (p: bf16[8,64]) -> bf16[32,64] {
  %p = bf16[8,64]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[32,64]{1,0:T(8,128)} all-gather(%p), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
}

%outside (p: f32[10]) -> f32[40] {
  %p = f32[10]{0} parameter(0)
  ROOT %all-gather.4 = f32[40]{0} all-gather(%p), channel_id=4, replica_groups=[2,4]<=[8], dimensions={0}
}

%meanwhile (p: f32[10]) -> f32[40] {
  %p = f32[10]{0} parameter(0)
  ROOT %all-gather.5 = f32[40]{0} all-gather(%p), channel_id=4, replica_groups=[2,4]<=[8], dimensions={0}
}

%body (state: (s32[], f32[100])) -> (s32[], f32[100]) {
  %first = bf16[32,64]{1,0} fusion(%x), kind=kCustom, calls=%fused
  %second = bf16[32,64]{1,0} fusion(%x), kind=kCustom, calls=%fused.stage
  %third = f32[40]{0} fusion(%x), kind=kCustom, calls=%meanwhile
  %all-reduce.3 = f32[100]{0} all-reduce(%y), channel_id=2, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
}

%condition (state: (s32[], f32[100])) -> pred[] {
  %bound = s32[]{:T(128)} constant(5)
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

ENTRY %main (x: bf16[8,64]) -> f32[100] {
  %begun = f32[40]{0} fusion(%z), kind=kCustom, calls=%outside
  %while.1 = (s32[], f32[100]{0}) while(%start), condition=%condition, body=%body
  %scattered = f32[25]{0} reduce-scatter(%z), channel_id=3, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
}
"""


def test_collectives_are_counted_by_hand() -> None:
    counted = count_collectives(HLO)
    gathered = 32 * 64 * 2
    assert counted.sent == {
        # Once a turn, though it is cut into two stages; the other once in all, though a stage of it is in the loop.
        "all-gather": 5 * gathered * 3 // 4 + 40 * 4 * 3 // 4,
        "all-reduce": 5 * 2 * 400 * 3 // 4,
        "reduce-scatter": 100 * 3,
    }
    assert counted.total == sum(counted.sent.values())
    assert counted.gathered_in_loops == gathered + 400
