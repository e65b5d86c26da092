"""What other trainers call our settings: TRL, verl (and Search-R1, which is built on it), OpenRLHF."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

# A name with a dot is the end of a longer one, e.g. verl's actor_rollout_ref.rollout.n; it goes before one without.
OURS: Mapping[str, tuple[str, ...]] = {
    "run.name": ("run_name", "experiment_name", "wandb_run_name"),
    "run.folder": ("output_dir", "default_local_dir", "save_path"),
    "run.seed": ("data_seed", "random_seed"),
    "run.steps": ("max_steps", "total_training_steps", "num_steps", "total_steps"),
    "data.train": ("train_files", "train_file", "train_dataset", "dataset_name", "prompt_data", "data_path"),
    "data.test": ("val_files", "test_files", "val_file", "eval_file", "test_file", "eval_dataset", "eval_data"),
    "data.corpus": ("corpus_path", "retriever.corpus", "corpus_file"),
    "data.questions_per_step": (
        "train_batch_size",
        "rollout_batch_size",
        "generation_batch_size",
        "gen_batch_size",
        "batch_size",
    ),
    "data.test_questions": ("val_batch_size", "max_eval_samples", "eval_samples", "val_max_samples"),
    "model.path": ("model_name_or_path", "model_name", "pretrain", "base_model", "model_path", "model_id", "hf_path"),
    "model.dtype": ("model_dtype", "rollout.dtype"),
    "search.url": ("retriever.url", "search_url", "retrieval_url", "retrieval_service_url"),
    "search.top_k": ("topk", "retriever.topk", "topk_rerank", "rerank_topk"),
    "search.top_k_retrieve": ("topk_retrieval", "retrieval_topk"),
    "search.encoder": ("retriever_model", "retrieval_model", "retriever_name", "embedding_model"),
    "search.faiss_index": ("index_path", "index_file"),
    "search.reranker": ("reranking_model_name_or_path", "rerank_model", "reranker_model"),
    "search.num_cpus": ("cluster.search_cpus",),
    "search.num_gpus": ("cluster.search_gpus",),
    "rollout.engine": ("rollout.name", "use_vllm", "rollout_backend"),
    "rollout.engines": ("vllm_num_engines", "num_inference_engines"),
    "rollout.samples": ("num_generations", "rollout.n", "n_agent", "n_samples_per_prompt", "num_samples", "group_size"),
    "rollout.top_p": ("nucleus", "top_p_sampling", "generate_top_p"),
    "rollout.temperature": ("sampling_temperature", "generation_temperature"),
    "rollout.max_turns": ("max_assistant_turns", "max_tool_calling_iterations", "max_searches", "max_user_turns"),
    "rollout.max_prompt_tokens": ("max_prompt_length", "prompt_max_len", "max_start_length"),
    "rollout.max_turn_tokens": (
        *("max_completion_length", "max_response_length", "generate_max_len", "max_new_tokens", "response_length"),
    ),
    "rollout.max_observation_tokens": ("max_obs_length", "max_tool_response_length"),
    "rollout.max_tokens": (
        *(
            "max_model_len",
            "max_len",
            "max_seq_length",
            "max_length",
            "max_model_length",
            "vllm_max_model_length",
            "max_tokens",
        ),
    ),
    "rollout.tensor_parallel": (*("tensor_model_parallel_size", "vllm_tensor_parallel_size", "tensor_parallel_size"),),
    "rollout.gpu_memory_utilization": ("vllm_gpu_memory_utilization", "gpu_memory_fraction"),
    "rollout.max_concurrent": ("max_num_seqs", "vllm_max_num_seqs"),
    "rollout.vllm": (
        *("enforce_eager", "max_num_batched_tokens", "enable_chunked_prefill", "enable_prefix_caching"),
        *("vllm_enable_prefix_caching", "hf_overrides", "engine_kwargs"),
    ),
    "rollout.placement": ("colocate_all_models", "vllm_mode", "hybrid_engine", "colocate_all"),
    "rollout.max_staleness": ("max_async_level", "max_off_policy_steps", "async_train"),
    "method.name": ("adv_estimator", "advantage_estimator", "loss_type", "algorithm.name"),
    "method.keep": ("filter_groups", "filter_groups.enable", "dynamic_filtering", "dynamic_sampling"),
    "method.spare_questions": ("max_num_gen_batches", "filter_groups.max_num_gen_batches"),
    "reward.overlong": ("overlong_buffer", "overlong_buffer.len", "overlong_buffer_len"),
    "reward.overlong_penalty": ("overlong_buffer.penalty_factor", "penalty_factor", "overlong_penalty_factor"),
    "method.params.gamma": ("gamma",),
    "method.params.lam": ("gae_lambda", "lambd"),
    "method.params.critic_lr": ("critic_learning_rate", "critic.optim.lr"),
    "learner.warmup_steps": ("lr_warmup_steps", "warmup_ratio", "lr_warmup_steps_ratio", "lr_warmup_ratio"),
    "learner.critic_warmup_steps": ("critic.optim.lr_warmup_steps_ratio", "critic_lr_warmup_steps"),
    "learner.critic_only_steps": ("critic_warmup", "freezing_actor_steps"),
    "learner.passes": ("ppo_epochs", "num_iterations", "num_ppo_epochs"),
    "learner.lr": ("learning_rate", "actor_learning_rate", "optim.lr"),
    "learner.betas": ("adam_betas", "adam_beta1", "adam_beta2"),
    "learner.weight_decay": ("wd", "l2"),
    "learner.grad_clip": ("max_grad_norm", "max_norm", "clip_grad", "gradient_clipping", "clip_grad_norm"),
    "learner.minibatch_rollouts": (
        *("per_device_train_batch_size", "ppo_mini_batch_size", "mini_batch_size", "sgd_minibatch_size"),
    ),
    "learner.token_budget": (
        *("gradient_accumulation_steps", "ppo_micro_batch_size", "ppo_micro_batch_size_per_gpu", "micro_batch_size"),
        *("ppo_max_token_len_per_gpu", "micro_train_batch_size"),
    ),
    "learner.clip": ("epsilon", "clip_ratio", "eps_clip", "cliprange", "clip_range", "clip_param", "clip_eps"),
    "learner.clip_high": ("epsilon_high", "clip_ratio_high", "clip_eps_high", "eps_clip_high"),
    "learner.dual_clip": ("clip_ratio_c", "delta", "eps_clip_c"),
    "learner.surrogate": ("policy_loss", "loss_mode", "importance_sampling_level"),
    "learner.divisor": ("loss_agg_mode", "loss_aggregation", "token_level_loss"),
    "learner.token_mask": ("rollout_token_veto_threshold", "icepop", "token_mask_low", "token_mask_high"),
    "learner.rollout_mask": ("geo_mask", "rollout_rs_threshold", "geo_mask_low", "geo_mask_high"),
    "learner.kl_coef": ("beta", "kl_loss_coef", "init_kl_coef", "kl_beta", "kl_coeff", "kl_penalty_coef"),
    "learner.entropy_coef": ("entropy_coeff", "entropy_loss_coef", "ent_coef"),
    "learner.importance_cap": ("vllm_importance_sampling_cap", "tis_imp_ratio_cap", "rollout_is_threshold"),
    "learner.gradient_checkpointing": ("enable_gradient_checkpointing", "activation_checkpointing"),
    "learner.zero": ("zero_stage", "fsdp_size", "fsdp"),
    "learner.lora_rank": ("lora_r", "lora.rank"),
    "learner.lora_targets": ("target_modules", "lora_target_modules"),
    "learner.dtype": ("bf16", "fp16", "mixed_precision", "param_dtype"),
    "learner.learners": ("actor_num_nodes", "actor_num_gpus_per_node"),
    "evaluation.every": ("eval_steps", "test_freq", "eval_interval", "eval_strategy"),
    "checkpoint.every": ("save_steps", "save_freq", "save_interval"),
    "checkpoint.keep_last": ("save_total_limit", "max_actor_ckpt_to_keep", "max_ckpt_num"),
    "checkpoint.uri": ("ckpt_path", "checkpoint_dir", "default_hdfs_dir"),
    "cluster.address": ("ray_address", "head_address"),
    "tracking.mlflow_uri": ("tracking_uri", "mlflow_tracking_uri"),
    "tracking.experiment": ("project_name", "wandb_project", "project"),
    "tracking.sampled_rollouts": ("log_completions", "log_val_generations", "num_completions_to_print"),
}
_MEANING = {  # of keys that count otherwise than their namesakes
    "data.questions_per_step": "questions, each with rollout.samples rollouts",
    "learner.minibatch_rollouts": "rollouts of one update, over all learners",
    "learner.token_budget": "tokens of a micro-batch, padding included, whose number follows from it",
    "learner.warmup_steps": "training steps, not a share of them",
    "rollout.vllm": "a table of vLLM's own engine arguments",
    "rollout.max_turn_tokens": "of one turn; rollout.max_tokens is for all of a rollout",
}
_KEY_OF = {theirs: key for key, names in OURS.items() for theirs in names}


def suggestion(wrong: str, keys: Sequence[str]) -> str:
    """ " (did you mean 'learner.lr'?)" for a name that is none of ours; "" where nothing is near."""
    key = right_name(wrong, keys)
    meaning = f", {_MEANING[key]}" if key in _MEANING else ""
    return f" (did you mean {key!r}{meaning}?)" if key else ""


def right_name(wrong: str, keys: Sequence[str]) -> str | None:
    """The key among `keys`, or in a method's parameters, that was meant by `wrong`; None where nothing is near.

    In this order: another trainer's name for it, with as much of its path as is known, then without; the same word in
    another section; what is spelled alike.
    """
    parts = wrong.lower().lstrip("+~").replace("-", "_").split(".")
    paths = [".".join(parts[start:]) for start in range(len(parts))]
    if theirs := next((_KEY_OF[path] for path in paths[:-1] if path in _KEY_OF), None):
        return theirs
    if parts[-1] in _KEY_OF:
        return _KEY_OF[parts[-1]]
    if same := next((key for key in keys if key.rpartition(".")[2] == parts[-1]), None):
        return same
    near = _alike(wrong, keys, 0.8) or _KEY_OF.get(_alike(parts[-1], list(_KEY_OF), 0.85), "")
    return near or _alike(wrong, keys, 0.5) or None


def _alike(word: str, known: Sequence[str], cutoff: float) -> str:
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=cutoff)), "")
