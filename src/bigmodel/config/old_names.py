"""Modules, classes and functions that a user's package may still import by the name of an earlier version.

`renamed` holds the `_target_`s, which keep working; what stands here is refused with one line that gives the new name.
"""

from __future__ import annotations

from collections.abc import Mapping

from bigmodel.config.renamed import MODULES as MODULES_OF_TARGETS
from bigmodel.config.renamed import current_target

# old=new, below `bigmodel`; the modules of `renamed.MODULES` are not repeated
_MODULES = """
adjustments=training.adjustments archive=datasets.files.archive assembly=training.build
augmentations=datasets.images.augmentations batch_trials=training.tuning.batch_size checkpoint=runs.checkpoint
checkpoint_state=runs.checkpoint_state clock=runtime.timing commands.in_process=python_api compose=config.composition
conf_directory=config.location config=config.config cost=training.tuning.cost divergence=training.nonfinite
download=datasets.files.download durable=safe_files evaluation=training.evaluation failures=training.error_translation
finders=training.tuning.auto_values guard=commands.exit_codes help=commands.help hidden=redaction
hydra_keys=config.hydra_keys inference=inference.predictor job=training.state light_torch=runtime.lazy_compiler
loop=training.loop offline=runtime.offline options=commands.arguments order=datasets.loading.order
overrides=config.override_parser own_yaml=config.own_yaml patterns=models.weights.name_patterns
peak=training.tuning.peak_flops phases=training.tuning.phase_timer plot=training.tuning.curve_png
precision=runtime.precision predicting=inference.processors preview=training.tuning.dry_run
profile=training.tuning.profile range_test=training.tuning.lr_range ranges=constraints resolvers=config.resolvers
results=runs.comparison results.choices=runs.choice_names results.leaderboard=runs.comparison.leaderboard
results.learning_curves=runs.comparison.learning_curves results.lettering=runs.comparison.lettering
results.measures=runs.comparison.measures results.plots=runs.comparison.plots
results.points=runs.comparison.seed_groups results.reading=runs.records results.run_files=runs.run_files
results.tables=runs.comparison.tables results.verdicts=runs.comparison.verdicts
results.words=runs.comparison.formatting resume=commands.resume run_directory=runs.directory saves=training.saver
search=sweeps.search search.objective=sweeps.search.objective search.outcome=sweeps.search.outcome
search.plan=sweeps.search.plan search.space=sweeps.search.space search.start=sweeps.search.start
search.study=sweeps.search.study seed_axis=sweeps.seed_axis settings=config.schema sift=config.overrides
signals=runtime.signals signatures=config.signatures statistics=runs.comparison.significance
strange_yaml=config.yaml_limits sweep=sweeps sweep.by_hydra=sweeps.by_hydra sweep.directory=sweeps.state.directory
sweep.elsewhere=sweeps.engines.remote_job sweep.engines=sweeps.engines.base sweep.gpus=runtime.gpus
sweep.hydra_task=sweeps.hydra_task sweep.ray_cluster=sweeps.engines.ray sweep.resume=sweeps.resume
sweep.run=sweeps.run sweep.settings=sweeps.state.settings sweep.slurm=sweeps.engines.slurm
sweep.staging=sweeps.state.staging sweep.table=sweeps.table sweep.template=sweeps.engines.fork_server
sweep.torn=runs.tolerant_json sweep.worker=sweeps.engines.job_process sweep.workers=sweeps.engines.processes
targets=config.instantiate tasks.metric_spec=metric_spec transcripts=models.decoding.ctc words=formatting
"""
# old module: old=new; a new name with dots has moved to another module than the rest
_NAMES = """
archive: opened=open_maybe_gzipped plain_size=uncompressed_size load_arrays=load_numpy_pickle
assembly: Parts=TrainingRun assemble=build_run optimizers_of=build_optimizers
augmentations: gathered=select_images coins=hash_coin_flips padded_by=pad_images
batch_trials: rates=measure_throughput chosen=pick_batch_size
checkpoint: settle=update_pointers_and_prune steps=list_checkpoints newest=load_newest sweep=remove_stale_temporaries
clock: now=synchronized_time
compose: Source=ConfigSource refuse_long=reject_long_overrides changed_by=apply_overrides by_hydra=run_hydra_cli
cost: Cost=StepCost cost=estimate_step_cost
datasets.answers: Answer=TargetEncoder Labels=MultiLabelTargets cut=split_rows
    hold=datasets.loading.claims.check_claims
datasets.catalogues: located=find_catalogue translations=read_catalogue
datasets.class_counts: in_words=describe_counts held_out_whole=warn_held_out_classes alike=warn_similar_names
datasets.class_folders: class_folders=find_class_folders broken_in_words=describe_broken
datasets.coded_sounds: decoded=decode_sound
datasets.encoding: Encoding=FeatureEncoder standard=mean_std
datasets.files: Published=PublishedFile check_labels=datasets.images.picture_files.check_labels
    check_shape=datasets.images.picture_files.check_shape check_channels=datasets.images.picture_files.check_channels
    fingerprint=fingerprint_files ImageFiles=datasets.images.picture_files.PictureFiles
    open_image=datasets.images.picture_files.open_image fit_picture=datasets.images.picture_files.fit_picture
    formats=datasets.images.picture_files.readable_formats reason=datasets.images.picture_files.pillow_reason
    SUFFIXES=datasets.files.table_files.SUFFIXES
datasets.folder_walk: walk=walk_files passed_over=describe_skipped
datasets.images: Source=datasets.images.source.ImageSource Arrays=datasets.images.source.InMemoryImages
    normalised=datasets.images.source.normalize
datasets.labelled_rows: Row=LabelledText Reader=LabelledTextReader texts_of=read_texts columns_of=column_names
datasets.locations: find=find_file settled=resolve_paths
datasets.mel: fitted=pad_or_trim
datasets.moments: moments=parse_timestamps moments_of=timestamps_of_rows suggested=suggest_formats
    names_of=date_feature_names
datasets.mu_law: encoded=mu_law_encode decoded=mu_law_decode
datasets.picture_check: Header=PictureHeader suffixes=readable_suffixes header=read_header broken_pictures=find_broken
    evenly=take_evenly settled=resolve_value_range looks=warn_uniform_pictures
datasets.picture_targets: Number=NumberTarget Labels=LabelsTarget no_number=number_problem names_in=split_names
    refuse_measurements=reject_measurements balance=describe_label_counts no_rows=no_rows_error
datasets.pipeline: ImageData=ImageLoader
datasets.roles: Roles=ColumnRoles inferred=infer_roles
datasets.rows: read=read_rows table_of=table_from_values refuse=raise_row_errors
    find=datasets.files.locations.find_data Format=datasets.files.table_format.TableFormat
datasets.scale: Scale=Standardizer
datasets.series_steps: Steps=TimeSteps
datasets.smiles: Smiles=SmilesTokenizer
datasets.sound_classes: sound_classes=spectrogram_dataset
datasets.sound_files: named=list_wavs fingerprint_of=fingerprint_sounds
datasets.split_names: split_of=split_named
datasets.splits: held_out=holdout_split
datasets.structured: kind=file_format parse=parse_structured
datasets.table_bytes: memory=total_memory too_large=too_large_error
datasets.table_checks: sound_rows=valid_rows usable=rows_without_problem report=format_problems
datasets.table_format: Format=TableFormat
datasets.tensors: Samples=IndexableSamples TensorData=TensorLoader fingerprint=fingerprint_tensors
datasets.text: TextData=TextLoader
datasets.text_archives: samples=iter_samples
datasets.text_encoding: codec=codec_name decoded=decode refusal=explain_undecodable candidates=likely_encodings
datasets.token_files: fingerprint=fingerprint_text packed=tokenize_cached
datasets.tokenizers: Bytes=ByteTokenizer Characters=CharTokenizer BytePairs=BPETokenizer chosen=make_tokenizer
    restored=tokenizer_from_spec Words=datasets.text.word_tokenizer.WordTokenizer
    learned_words=datasets.text.word_tokenizer.fit_word_tokenizer
datasets.wav: resampled=resample
datasets.windows: Windows=SlidingWindows
datasets.word_tokenizer: LearnedTokens=FittedTokenizer Words=WordTokenizer KnownCharacters=KnownCharTokenizer
    learned_words=fit_word_tokenizer learned_characters=fit_char_tokenizer
datasets.yesno: encoded=encode_characters
device: idlest=runtime.gpus.index_of_least_used
divergence: Update=StepRecord Watch=NonFiniteGuard
download: mirrored=mirror_url digest=file_hash obtain=ensure_file fetch=download_file percentage=stderr_progress
durable: TEMPORARY=TEMP_PREFIX sync_file=fsync_path sync_directory=fsync_directory
events: Trained=TrainLogged
failures: failures_in_words=translate_run_errors out_of_memory_in_words=translate_oom
    compiler_in_words=translate_compile_errors unrepeatable_in_words=translate_nondeterminism_errors
finders: Found=ResolvedConfig find=resolve_auto
guard: guarded=run_command coded=exit_code_of complain=print_errors
hidden: is_secret=is_secret_key hidden=redact
inference: fresh_model=build_model hold_evaluation=check_eval_targets
    best_checkpoint=runs.best_checkpoint.load_best_checkpoint
interfaces: Reading=LoaderOptions Data=Loader Counting=CountsClasses Kind=Processor Varying=HasAxes
    Portable=HasPortableSteps InMemory=ConvertsObjects Noting=HasNotes Mixing=MixesSamples FromData=InitsFromData
    Translating=AdaptsStateDict
job: Job=TrainState
light_torch: spare_the_compiler=avoid_dynamo_import deterministic_algorithms=set_deterministic_algorithms
    bare_step=unwrapped_step
listeners.lines: line=format_event metrics_in_words=format_metrics in_words=format_metric
listeners.metrics_file: flat=flatten_event
listeners.totals: Totals=RunTotals
loop: Checkpoints=Checkpointer Plan=LoopOptions
models.adapted_weights: adapted=adapt_tensor
models.bert: Encoder=BertEncoder
models.foreign_weights: fit=load_matching
models.gpt2_names: own_names=from_gpt2
models.layers: filters=conv_bn_relu
models.lora: merged=merge_lora
models.scanned: Scanned=ScannedRNN with_scans=replace_recurrent_layers
models.torchvision_model: made=build_classifier
models.transformer: Cache=KVCache Block=TransformerBlock mean_of_tokens=masked_mean turns=rotary_table
    turned=apply_rotary initialise=init_transformer_weights quieten=scale_residual_init
models.wavenet: Cache=WaveNetCache
models.windowed: level=instance_normalize
models.xlnet: Encoder=TwoStreamEncoder LeftToRight=CausalXLNet
optim.groups: decay_groups=weight_decay_groups scale_rates=scale_lrs
optim.muon: orthogonalised=newton_schulz
options: options=parse_options
order: Order=SampleOrder bounds=batch_starts
padding: padded=pad present=valid_mask
patterns: chosen=match_names
peak: Peak=PeakFlops measured_peak=measure_peak_flops
phases: Phases=PhaseTimer
plot: plot=draw_curve
precision: settle=choose_precision
predicting.columns: columns=format_columns
predicting.files: files=list_files content=read_text
predicting.generation: AnyOrder=SupportsLeftToRight decoder=as_decoder
predicting.inputs: samples=load_inputs
predicting.prediction: described=describe_predictor
predicting.ranking: ranked=top_classes table=format_ranking
predicting.texts: Texts=TextInputs
predicting.translating: search=beam_search
predicting.values: values=output_values value_table=format_values label_table=format_labels
predicting.waves: as_wave=to_wave
preview: preview=describe_run
profile: Profile=Profiler
range_test: Curve=LRRangeResult range_test=lr_range_test
ranges: Range=Bounds Matches=Pattern BelowOne=ProperFraction Interval=StepsOrEpochs
results.choices: choice=choice_name
results.plots: Scale=AxisScale scale=axis_scale
results.points: Point=SeedGroup group=group_by_config differing=differing_keys axes=varied_keys shown=format_value
results.reading: Run=RunRecord expand=read_run_or_sweep jobs_of=sweep_runs under=find_runs read=read_run
    held=is_locked course=iter_metric_events
results.tables: table=format_table
results.verdicts: LEVEL=SIGNIFICANCE_LEVEL compare=compare_to_best ranking=rank_by_mean statement=describe_comparison
results.words: MISSING=NO_VALUE mean=format_mean_std interval=format_interval difference=format_difference
    value=format_number chance=format_p_value duration=format_age
resume: resumed=load_for_resume
run_directory: make=create_run_directory make_exactly=create_exclusive Lock=runs.lock.RunLock
    describe=write_description environment=runs.environment.collect_environment
    cut_after=runs.metrics_repair.truncate_metrics started=runs.metrics_repair.read_elapsed_seconds
saves: Saves=AsyncCheckpointer
schedules: midpoint=step_midpoint
search.plan: Plan=SearchPlan planned=make_plan read=read_plan count=parse_n_trials
search.space: Parameter=Dimension parameter=parse_dimension
search.study: Search=OptunaSearch library=import_optuna
sift: sift=diagnose_overrides
signals: Stop=StopRequest
signatures: misfit=type_mismatch
statistics: Difference=TTestResult paired=paired_t_test welch=welch_t_test holm=holm_correction t_tail=t_two_sided_p
    summary=summarize
strange_yaml: refuse_strange=check_yaml_limits
sweep.gpus: visible=visible_gpus listed=parse_nvidia_smi take=acquire
targets: check=validate build=instantiate nearest=errors.suggest
tasks.auc: area=auc_from_histograms
tasks.chrf: counts=count_ngrams
tasks.ctc: spelt=to_text
tasks.forecasting: repeated=repeat_season
tasks.masked_language_modelling: Guesses=MaskedPrediction draws=draw_uniform
tasks.metric_spec: standard=standard_specs without=omit declared=declared_specs
transcripts: greedy=greedy_decode edit_distances=tasks.metrics.edit_distance.edit_distances
words: clip=truncate amount=format_si printable=escape_control
"""

REMOVED = frozenset(  # modules and names of an earlier version that have no successor
    f"bigmodel.{name}"
    for name in ("vectorized", "sweep.makes", "sweep.programs", "sweep.together", "interfaces.Reseeding")
)
MEMBERS: Mapping[str, Mapping[str, str]] = {  # attributes and keywords of classes that user code makes or is given
    "Batch": {"samples": "sample_ids", "pieces": "microbatches"},
    "ImageAugment": {"on_pixels": "augment_pixels", "on_inputs": "augment_inputs", "misfits": "problems"},
    "TensorDataset": {
        "facts": "properties",
        "summary": "description",
        "carried": "spec",
        "trimmed": "trim_padding",
        "about": "processor_spec",
        "example": "sample_batch",
        "open": "loader",
    },
}


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split())


def _names_by_module(text: str) -> dict[str, dict[str, str]]:
    lines = text.replace("\n    ", " ").strip().splitlines()
    return {f"bigmodel.{module}": _pairs(names) for module, names in (line.split(": ") for line in lines)}


MODULES: Mapping[str, str] = dict(MODULES_OF_TARGETS) | {
    f"bigmodel.{old}": f"bigmodel.{new}" for old, new in _pairs(_MODULES).items()
}
NAMES: Mapping[str, Mapping[str, str]] = _names_by_module(_NAMES)


def current_name(module: str, name: str) -> str | None:
    """Return today's full name of `module.name` as an earlier version had it; None if it has the same name today."""
    old = f"{module}.{name}"
    if old in MODULES:
        return MODULES[old]
    renamed = NAMES.get(module, {}).get(name)
    if renamed is not None:
        return f"bigmodel.{renamed}" if "." in renamed else f"{MODULES.get(module, module)}.{renamed}"
    if module in MODULES:
        target = current_target(old)
        return target if target != old else f"{MODULES[module]}.{name}"
    return None
