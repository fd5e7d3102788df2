"""Which tests a first run leaves out, beside those marked ``slow`` in their files: those that take most of the minutes.

A name stands for all of its cases but those whose id holds one of ``KEEP``. CI runs all of them (``pytest -m slow``).
"""

from __future__ import annotations

SLOW: dict[str, tuple[str, ...]] = {  # "module::test": parts of the ids of cases that stay
    "test_cuda_compile::test_every_kernel_compiles_without_spills": ("75-bias_act",),
    "test_cuda_compile::test_every_kernel_is_launched_with_parameters_that_can_be_read": (),
    "test_cuda_kernels::test_products_are_exact_on_small_integers": ("shuffled",),
    "test_cuda_kernels::test_the_triad_is_exact_on_small_integers": ("shuffled",),
    "test_cuda_kernels::test_the_triad_is_within_the_bound_of_a_dot_product": ("shuffled",),
    "test_device::test_a_captured_step_is_the_eager_step_bit_by_bit": (),
    "test_dynamics::test_only_some_dynamics_reach_the_bilinear_equilibrium": (),
    "test_dynamics::test_where_the_dirac_gan_ends": ("consensus",),
    "test_dynamics::test_rules_descend_the_loss_they_say": ("numba-consensus",),
    "test_examples::test_02_train_ring": (),
    "test_gan::test_training_finds_the_best_discriminator": (),
    "test_kernels::test_all_that_training_calls_is_compiled_ahead": (),
    "test_kernels::test_kernels_are_right_with_narrower_vectors": (),
    "test_kernels::test_loops_stay_inside_their_arrays": (),
    "test_kernel_types::test_a_number_of_any_type_is_the_number_that_it_is": ("True-False",),
    "test_optable::test_gradients": ("numba",),
    "test_optable::test_gradients_on_the_emulated_device": ("shuffled-dense", "shuffled-conv2d]", "shuffled-bias_act]"),
    "test_optable::test_values_on_the_emulated_device": ("shuffled",),
    "test_planted_bugs::test_planted_bug_is_caught": ("conv", "matmul", "loss", "cotangent", "broadcast"),
    "test_run::test_the_loop_may_be_left_at_any_event": (),
    "test_run::test_the_number_of_threads_changes_no_bit": (),
    "test_stability::test_the_edges_of_a_large_spectrum_are_those_of_the_dense_one": (),
    "test_stability::test_the_jacobian_is_that_of_finite_differences": (),
    "test_studies::test_a_study_leaves_its_files": ("gradient-strength", "depth"),
    "test_studies::test_the_dirac_table_is_that_of_its_closed_forms": (),
    "test_trace::test_every_game_is_replayed_with_the_same_bits": ("alternating-plain", "simultaneous-spectral norm"),
}
