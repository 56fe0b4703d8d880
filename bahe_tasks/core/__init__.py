"""The model of the paper, in the order it is read best.

1. The LLM cut in two: `llm_split` (with `llm_parts`, `llm_cut`, `llm_check`, `deep_attention`, `last_layer`, `one_query`,
   `one_query_attention`).
2. Each text once through the shallow layers: `encoder` (with `tokens`, `text_encoder`, `encode_chunks`, `packed_linear`,
   `pooling`).
3. Rows and what is shared among them: `columns`, `point_in_time` (with `rows_at`), `training_rows`, `batches` (with `length_groups`), `model_spec`.
4. Sequences of behavior embeddings through the deep layers, and the CTR head: `ctr_model` (with `sequence_inputs`, `text_topics`, `text_clusters`, `text_ids`,
   `head_fields`, `user_fields`, `kept_weights`, `heads`, `expected_click`, `target_attention`, `lora`).
5. The daily fine-tune: `train` (with `training_step`, `one_ahead`, `label_loss`, `window_level`, `optimizers`, `muon`, `row_wise_adagrad`,
   `schedule`, `compiled_layers`, `training_state`, `ranks`, `train_processes` (with `launched`, `child_processes`), `halving`).
6. What comes of it: `model_files`, `score`, `metrics` (with `intervals`, `resampling`, `resampled_metrics`, `delong`).

Runs alone on a GPU machine: torch, transformers, safetensors and numpy, and peft where LoRA is chosen.
"""
