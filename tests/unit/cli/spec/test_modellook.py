"""What a model's files show to be impossible is told before anything starts: the model, the file and the remedy."""

from __future__ import annotations

import itertools
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dflow_cli.spec import modelfiles
from dflow_cli.spec.modellook import look_at_models
from dflow_protocols.pipeline import Pipeline, Problem, Stage
from tests.support.repository import EXAMPLES
from tests.unit.protocols.written_specs import example, stage

CONFIG = json.loads((EXAMPLES / "spell_llama.json").read_text())  # 64 positions, a vocabulary of 30
Change = Callable[[Path], Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, with weights of no parameters."""
    shutil.copytree(EXAMPLES / "spell_tokenizer", tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model" / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    (tmp_path / "words.jsonl").write_text('{"prompt": "abc", "answer": "cba"}\n')
    return tmp_path / "model"


def pipeline(**data: Any) -> Pipeline:
    spec = example()
    spec["models"]["policy"] = {"path": "model/"}
    spec["data"]["words"] = {"jsonl": "words.jsonl", "held_out": {"share": 0.1, "count": 5}, **data}
    return Pipeline.from_dict(spec)


def told(folder: Path, made: Pipeline | None = None) -> list[Problem]:
    return look_at_models(made or pipeline(), folder.parent).problems


def write(name: str, **facts: Any) -> Change:
    """Keys of a JSON file, laid over those that are there."""

    def change(folder: Path) -> None:
        file = folder / name
        before = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(before | facts))

    return change


def cut(name: str) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-20])


def template(text: str) -> Change:
    return lambda folder: (folder / "chat_template.jinja").write_text(text)


def weights(**tensors: Any) -> Change:
    head = json.dumps({name: {"data_offsets": ends} for name, ends in tensors.items()}).encode()
    return lambda folder: (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + b"1234")


def test_a_model_that_fits_is_not_spoken_of(folder: Path) -> None:
    template("{% for m in messages %}{{ m['content'] }}{% endfor %}")(folder)
    found = look_at_models(pipeline(), folder.parent)
    assert (found.problems, found.warnings) == ([], [])


MISTAKES: dict[str, tuple[Change, str]] = {
    "no JSON": (cut("config.json"), "model/config.json is not JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "model/config.json is not a JSON object"),
    "no text": (lambda f: (f / "tokenizer.json").write_bytes(b"\xff"), "model/tokenizer.json is no text in UTF-8"),
    "no type": (write("config.json", model_type=None), "names no `model_type`"),
    "an unknown type": (write("config.json", model_type="lama"), "has no language model of type `lama`"),
    "no config": (lambda f: (f / "config.json").unlink(), "there is no `model/config.json`"),
    "soft caps": (write("config.json", final_logit_softcapping=30.0), "`final_logit_softcapping` is 30.0"),
    "linear attention": (write("config.json", layer_types=["linear_attention"]), "`linear_attention`"),
    "rules of sampling": (write("generation_config.json", suppress_tokens=[3]), "`suppress_tokens` is not supported"),
    "an end beyond": (write("generation_config.json", eos_token_id=[1, 30]), "end token 30 is beyond the vocabulary"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
    "weights cut off": (weights(a=[0, 8]), "bytes long where its head speaks of"),
    "a pointer": (lambda f: (f / "model.safetensors").write_bytes(b"version https://git-lfs"), "pointer of Git LFS"),
    "a head cut off": (cut("model.safetensors"), "is cut off, or no safetensors file"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "model holds no tokenizer"),
    "no tokenizer in it": (lambda f: (f / "tokenizer.json").write_text('{"a": 1}'), "it has no `model`"),
    "no end": (write("tokenizer_config.json", eos_token=None), "the tokenizer has no eos token"),
    "an end of another": (write("tokenizer_config.json", eos_token="<eo>"), "`<eo>` is not in the tokenizer's vocab"),
    "a small vocabulary": (write("config.json", vocab_size=20), "tokens up to 29, and model/config.json a vocabulary"),
    "a system's message": (template("{{ raise_exception('system first') }}"), "jinja: it raises an error on a prompt"),
    "no template": (template("{% for %}"), "the chat template in model/chat_template.jinja: line 1"),
    "chance": (template("{{ messages | random }}"), "draws at random"),
    "a lost message": (template("{{ messages[0]['contents'] }}"), "leaves a user's message out of the prompt"),
    "heads that do not share": (
        write("config.json", num_key_value_heads=3),
        "(`num_attention_heads`) cannot share 3 keys",
    ),
    "heads that do not fit": (write("config.json", num_attention_heads=7), "cannot be dealt to 7 heads"),
    "no heads": (write("config.json", num_attention_heads=0), "`num_attention_heads` is 0"),
    "a size in quotes": (write("config.json", vocab_size="30"), "`vocab_size` is the text `30`"),
    "layers below none": (write("config.json", num_hidden_layers=-1), "`num_hidden_layers` is -1"),
    "a token's text": (write("config.json", eos_token_id="<eos>"), "`eos_token_id` is the text `<eos>`"),
    "padding beyond": (write("config.json", pad_token_id=30), "`pad_token_id` 30 is beyond the vocabulary of 30"),
    "a fraction in quotes": (write("config.json", rms_norm_eps="1e-6"), "`rms_norm_eps` is the text `1e-6`"),
    "no such dtype": (write("config.json", dtype="float77"), "`dtype` is the text `float77`"),
    "no such activation": (write("config.json", hidden_act="sillu"), "has no `hidden_act` called `sillu`"),
    "an empty tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "it has no `model`"),
    "a tokenizer of no kind": (write("tokenizer.json", model={"type": "Foo"}), "tokenizer.json is no tokenizer"),
    "few positions": (write("config.json", max_position_embeddings=6), "`max_tokens` 6 leaves no room for a prompt"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_what_a_models_files_show_is_told_with_its_name_and_a_remedy(folder: Path, kind: str) -> None:
    """It took three starts of an engine, and came as a library's line."""
    change, words = MISTAKES[kind]
    change(folder)
    found = told(folder)
    assert any(words in problem.what for problem in found), found
    assert all("`policy`" in problem.what and problem.hint for problem in found)
    assert {problem.path.partition(".")[0] for problem in found} <= {"models", "stages[1]", "stages[5]", "data"}


def test_adapters_of_layers_that_no_such_model_has_are_told(folder: Path) -> None:
    """With the name that was meant, by the code of the library that is installed: it is read, not loaded."""

    def of(*targets: str) -> list[Problem]:
        spec = example()
        spec["models"]["policy"] = {"path": "model/", "lora": {"rank": 8, "alpha": 16, "targets": [*targets]}}
        spec["data"] = pipeline().to_dict()["data"]
        return told(folder, Pipeline.from_dict(spec))

    assert of("q_proj", "mlp.down_proj") == []
    assert of("q_pro") == [
        Problem(
            "models.policy.lora.targets",
            "model `policy`: a model of type `llama` has no layer `q_pro`",
            "did you mean `q_proj`?",
        )
    ]


def test_weights_in_pieces_are_there_to_the_last(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    write("model.safetensors.index.json", weight_map=names)(folder)
    (problem,) = told(folder)
    assert "names model-00002-of-00002.safetensors, which is not there" in problem.what


@pytest.mark.parametrize(
    ("prompt", "answer", "words"),
    [
        (
            "ab" * 30,
            "c",
            "`roll`: words.jsonl:2: a prompt of 61 tokens and `max_tokens` 6 are longer than the context of",
        ),
        (
            "ab" * 30,
            "abcd",
            "`warm`: words.jsonl:2: a prompt of 61 tokens and an answer of 5 are longer than the context",
        ),
    ],
)
def test_a_line_longer_than_the_positions_is_named(folder: Path, prompt: str, answer: str, words: str) -> None:
    """Rotary models would go on without a word where they were never trained."""
    pytest.importorskip("tokenizers")
    lines = [{"prompt": "abc", "answer": "cba"}, {"prompt": prompt, "answer": answer}]
    (folder.parent / "words.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = [problem for problem in told(folder) if words in problem.what]
    assert [problem.path for problem in found] == ["data.words.jsonl"]


def test_a_line_of_megabytes_is_told_in_no_time(folder: Path) -> None:
    """A tokenizer takes minutes for one word of ten million letters; its first thousands are too long already."""
    pytest.importorskip("tokenizers")
    (folder.parent / "words.jsonl").write_text(json.dumps({"prompt": "a" * 10_000_000, "answer": "cba"}) + "\n")
    assert any("words.jsonl:1: a prompt of" in problem.what for problem in told(folder))


def test_lines_that_cannot_be_counted_here_are_warned_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client without the package still says that it may be so."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    monkeypatch.setattr("dflow_cli.spec.modellook._tokenizer", lambda files, found: None)
    (folder.parent / "words.jsonl").write_text(json.dumps({"prompt": "ab" * 60, "answer": "c"}) + "\n")
    found = look_at_models(pipeline(), folder.parent)
    assert found.problems == []
    assert any("may be longer than the 64 positions" in warning.what for warning in found.warnings)


def test_a_template_that_asks_for_the_date_is_warned_of_once(folder: Path) -> None:
    """Its prompts are a function of the spec all the same, and not those of another program."""
    template("{{ strftime_now('%d %b %Y') }}{{ messages[0]['content'] }}")(folder)
    found = look_at_models(pipeline(), folder.parent)
    assert found.problems == []
    (warning,) = found.warnings
    assert "asks for the date: it is told 2024-07-26 always" in warning.what


def test_data_without_chat_does_not_need_the_template(folder: Path) -> None:
    template("{{ raise_exception('system first') }}")(folder)
    assert told(folder, pipeline(chat=False)) == []


def test_a_chat_without_a_template_is_told_with_the_datas_line(folder: Path) -> None:
    (problem,) = told(folder, pipeline(chat=True))
    assert problem.path == "data.words.chat"
    assert "has no chat template" in problem.what


CHATML = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if think is defined and not think %}.{% endif %}{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
DEAF = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"


@pytest.mark.parametrize(
    ("text", "what"),
    [(NO_SYSTEM + CHATML, "takes no system's message: it raises an error on"), (DEAF, "it is left out of the prompt")],
)
def test_a_system_text_that_the_template_does_not_take_is_told(folder: Path, text: str, what: str) -> None:
    """At the key that has it; the same template without it is in order."""
    template(text)(folder)
    assert told(folder) == []
    (problem,) = told(folder, pipeline(system="be brief"))
    assert problem.path == "data.words.system"
    assert what in problem.what


def test_what_is_told_to_a_template_that_does_not_ask_for_it_is_a_doubt(folder: Path) -> None:
    """Templates pass over what they do not know, a misspelt name included."""
    template(CHATML)(folder)
    assert look_at_models(pipeline(template_args={"think": False}), folder.parent).warnings == []
    (warning,) = look_at_models(pipeline(template_args={"thinks": False}), folder.parent).warnings
    assert warning.path == "data.words.template_args.thinks"
    assert "does not ask for `thinks`" in warning.what
    assert warning.hint == "did you mean `think`?"
    template(DEAF)(folder)
    (warning,) = look_at_models(pipeline(template_args={"think": False}), folder.parent).warnings
    assert warning.hint == "leave it out: the template asks for nothing"


@pytest.mark.parametrize("key", ["messages", "system"])
def test_what_needs_a_template_is_told_where_there_is_none(folder: Path, key: str) -> None:
    (problem,) = told(folder, pipeline(**{key: "x"}))
    assert problem.path == f"data.words.{key}"
    assert f"has no chat template, which `{key}` is for" in problem.what


def test_a_conversation_that_does_not_fit_is_named_by_its_line(folder: Path) -> None:
    template(CHATML.replace("<", "").replace(">", ""))(folder)
    said = [{"role": "user", "content": "a" * 50}, {"role": "assistant", "content": "b"}]
    (folder.parent / "words.jsonl").write_text(json.dumps({"chat": said}) + "\n")
    (problem, *_) = told(folder, pipeline(messages="chat"))
    assert "words.jsonl:1: a prompt of " in problem.what


def test_turns_that_a_template_does_not_keep_apart_are_told_by_the_first_such_line(folder: Path) -> None:
    """For `sft`: it trains on all answers of a conversation. With one answer each the template is in order."""
    template(CHATML.replace("m['content']", "m['content'] if loop.last or m['role'] == 'user' else 'z'"))(folder)
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (folder.parent / "words.jsonl").write_text("\n".join(json.dumps({"chat": talk * times}) for times in (1, 1)))
    assert told(folder, pipeline(messages="chat")) == []
    (folder.parent / "words.jsonl").write_text("\n".join(json.dumps({"chat": talk * times}) for times in (1, 1, 2)))
    (problem,) = told(folder, pipeline(messages="chat"))
    assert problem.path == "data.words.messages"
    assert "words.jsonl:3, by the template of model `policy`: the chat template words turn 2 of 4" in problem.what


def test_a_conversation_that_the_template_refuses_is_told_by_its_line(folder: Path) -> None:
    """Such as two turns of a user: a prompt of one message comes through, and the run would end at this one."""
    twice = "{% if messages[1:] and messages[0].role == messages[1].role %}{{ raise_exception('twice') }}{% endif %}"
    template(twice + CHATML)(folder)
    user, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    talks = [[user, answer], [user, user, answer]]
    (folder.parent / "words.jsonl").write_text("\n".join(json.dumps({"chat": talk}) for talk in talks))
    found = told(folder, pipeline(messages="chat", max_prompt_tokens=40, long_prompts="drop"))
    assert {problem.path for problem in found} == {"data.words.messages"}
    assert all("words.jsonl:2, by the template of model `policy`" in problem.what for problem in found)


@pytest.mark.parametrize(
    ("does", "what", "is_mistake"),
    [
        (
            "refuse",
            "1 of 2 prompts of words.jsonl are longer than `max_prompt_tokens`, 20: the first is words.jsonl:2",
            True,
        ),
        ("drop", "1 of 2 prompts of words.jsonl are longer than `max_prompt_tokens`, 20: they are left out", False),
        ("cut_left", "they lose their first tokens (the first is words.jsonl:2)", False),
    ],
)
def test_prompts_beyond_the_datas_own_bound_are_counted(folder: Path, does: str, what: str, is_mistake: bool) -> None:
    """Those that are left out are no longer too long for the model either."""
    lines = [{"prompt": prompt, "answer": "b"} for prompt in ("abc", "a" * 60)]
    (folder.parent / "words.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = look_at_models(pipeline(max_prompt_tokens=20, long_prompts=does), folder.parent)
    (problem,) = found.problems if is_mistake else found.warnings
    assert problem.path == "data.words.max_prompt_tokens"
    assert what in problem.what
    assert bool(found.problems) == is_mistake


@pytest.mark.parametrize(
    ("does", "said", "mistakes"),
    [
        ("drop", "a/b/" + "c" * 40 + "/d", 0),  # what a rollout would be asked is too long, so nothing trains on it
        ("cut_left", "a" * 60 + "/b", 0),  # fits when the beginning is cut off
        ("cut_left", "a/" + "b" * 60, 1),
        ("refuse", "a" * 60 + "/b", 2),  # for those who train on it, and for those who are asked
    ],
)
def test_conversations_that_are_left_out_or_cut_are_not_too_long(
    folder: Path, does: str, said: str, mistakes: int
) -> None:
    """Else the key that makes data fit would be of no use for what is trained on."""
    template(CHATML.replace("<", "").replace(">", ""))(folder)
    who = itertools.cycle(("user", "assistant"))
    chats = [[{"role": next(who), "content": text} for text in line.split("/")] for line in ("a/b", said)]
    (folder.parent / "words.jsonl").write_text("".join(json.dumps({"chat": chat}) + "\n" for chat in chats))
    found = told(folder, pipeline(messages="chat", max_prompt_tokens=30, long_prompts=does))
    assert len(found) == mistakes
    assert all("words.jsonl:2" in problem.what for problem in found)


def test_a_prompt_of_a_mixed_data_set_that_does_not_fit_is_named_by_its_own_line(folder: Path) -> None:
    """Once, however many stages read the mixture."""
    (folder.parent / "long.jsonl").write_text(json.dumps({"prompt": "a" * 80, "answer": "b"}))
    spec = example()
    spec["models"]["policy"] = {"path": "model/"}
    spec["data"] = {"words": {"jsonl": "words.jsonl", "held_out": {"share": 0.1, "count": 5}}}
    spec["data"] |= {"long": {"jsonl": "long.jsonl"}, "both": {"mix": {"words": 1, "long": 1}}}
    stage(spec, "roll")["config"]["data"] = "both"
    (problem,) = told(folder, Pipeline.from_dict(spec))
    assert problem.path == "data.long.jsonl"
    assert "stage `roll`: long.jsonl:1: a prompt of 81 tokens" in problem.what


def test_pairs_with_an_answer_that_is_too_long_are_counted_and_the_first_named(folder: Path) -> None:
    """Hours into a run would be late to learn of it; an answer that is just as long as allowed, with its end, is."""
    rows = [("cba", "abc"), ("cba", "abcd"), ("cbade", "abc")]
    lines = [json.dumps({"prompt": "abc", "answer": good, "worse": bad}) for good, bad in rows]
    (folder.parent / "words.jsonl").write_text("\n".join(lines))
    (problem,) = told(folder, of_pairs(rejected="worse"))
    assert problem.path == "stages[0].config.max_tokens"
    assert problem.what == (
        "stage `pairs`: 2 of 3 pairs of words.jsonl have an answer of more tokens than `max_tokens`, 4: "
        "the first is words.jsonl:2"
    )


def test_a_template_that_words_a_question_otherwise_once_it_is_answered_is_told(folder: Path) -> None:
    """Then nothing says which of the text is the answer."""
    template("{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}?{% endif %}")(folder)
    asked = {"role": "user", "content": "abc"}
    row = {"talk": [asked, {"role": "assistant", "content": "cba"}], "worse": "abc"}
    (folder.parent / "words.jsonl").write_text(json.dumps(row))
    (problem,) = told(folder, of_pairs(messages="talk", rejected="worse"))
    assert "words.jsonl:1, by the template of model `policy`: the chat template words what is asked" in problem.what


def of_pairs(**data: Any) -> Pipeline:
    return Pipeline(
        name="mine",
        steps=2,
        models={"policy": {"path": "model/"}, "reference": {"path": "model/"}},
        data={"words": {"jsonl": "words.jsonl", **data}},
        stages=[
            Stage("pairs", "preferences", "policy", config={"data": "words", "prompts": 1, "max_tokens": 4}),
            Stage("ref", "logprob", "reference"),
            Stage("learn", "train", "policy", config={"loss": {"kind": "dpo"}, "optimizer": {"adamw": {"lr": 1e-3}}}),
        ],
    )


def test_a_reply_s_template_that_the_tokenizer_cannot_read_is_told(folder: Path) -> None:
    """Else the first step would end the run. Around what is said there may be nothing but what the model knows."""

    def replying(template: str) -> Pipeline:
        spec = pipeline().to_dict()
        config = {"template": template, "max_tokens": 4}
        spec["stages"].insert(2, {"id": "answer", "op": "reply", "model": "policy", "config": config})
        return Pipeline.from_dict(spec)

    assert told(folder, replying("{prompt}\n{completion}\n")) == []
    (problem,) = told(folder, replying("{prompt}: Größe {completion}\n"))
    assert problem.path == "stages[2].config.template"
    assert "stage `answer`: the tokenizer of model `policy` cannot read '{prompt}: Größe" in problem.what
    assert problem.hint == "word it in characters that the model knows"


def test_a_reference_of_another_type_is_looked_at_too(folder: Path) -> None:
    """A model that no stage trains is opened by engines like any other."""
    spec = pipeline().to_dict()
    spec["models"]["reference"] = {"init": {"config": "ref.json", "tokenizer": "model"}}
    (folder.parent / "ref.json").write_text(json.dumps(CONFIG | {"model_type": "bloom"}))
    (problem,) = told(folder, Pipeline.from_dict(spec))
    assert problem.path == "models.reference.init.config"
    assert "model `reference`: ref.json: a model of type `bloom` takes no positions" in problem.what


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_files_of_an_earlier_version_are_those_of_its_model_and_told_once(folder: Path, file: str) -> None:
    """It names none itself, so there is no other place to mend."""
    spec = pipeline().to_dict()
    spec["models"]["earlier"] = {"version_of": "policy", "at": 0}
    spec["stages"].insert(2, {"id": "ref", "op": "logprob", "model": "earlier"})
    made = Pipeline.from_dict(spec)
    assert told(folder, made) == []
    (folder / file).write_text("[1]")
    assert [problem.path for problem in told(folder, made)] == ["models.policy.path"]


def test_a_critic_of_a_type_without_a_value_head_is_told(folder: Path) -> None:
    """Before any engine is asked; the same type may be the policy."""

    def of(kind: str) -> list[str]:
        spec = pipeline().to_dict()
        spec["models"]["critic"] = {"init": {"config": "critic.json", "tokenizer": "model/"}, "head": "value"}
        (folder.parent / "critic.json").write_text(json.dumps(CONFIG | {"model_type": kind}))
        return [problem.what for problem in told(folder, Pipeline.from_dict(spec))]

    assert of("llama") == []
    assert of("cohere2") == [
        "model `critic`: critic.json: transformers puts no value head on a model of type `cohere2`"
    ]


def test_model_types_are_read_from_the_installed_library_without_loading_it() -> None:
    """Importing it would load PyTorch, seconds before the first word."""
    ask = "import sys; from dflow_cli.spec.modelfiles import causal_models as m; print(len(m()), 'llama' in m(), {})"
    ask = ask.format("'torch' in sys.modules")
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    count, has_llama, has_torch = done.stdout.split()
    assert int(count) > 100
    assert (has_llama, has_torch) == ("True", "False")


def test_an_installation_without_the_library_says_nothing_of_types(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client's machine need not have what engines have."""
    monkeypatch.setattr(modelfiles, "causal_models", frozenset)
    write("config.json", model_type="newer")(folder)
    assert told(folder) == []


@pytest.mark.parametrize("claim", ["exact", "replay"])
def test_heads_that_vllm_has_no_kernel_for_on_a_cpu_are_told(folder: Path, claim: str) -> None:
    """Before a daemon finds out minutes later: as a mistake where the run is kept to CPUs."""
    write("config.json", hidden_size=64)(folder)
    spec = pipeline().to_dict() | {"reproducibility": claim}
    for each in spec["stages"]:
        if each["id"] in ("roll", "heldout"):
            each["engine"] = "vllm"

    def of_heads() -> tuple[list[Problem], list[Problem]]:
        found = look_at_models(Pipeline.from_dict(spec), folder.parent)
        mistakes, doubts = ([p for p in each if "heads" in p.what] for each in (found.problems, found.warnings))
        return mistakes, doubts

    wanted = Problem(
        "stages[1].engine",
        "stage `roll`: model/config.json of model `policy`: attention heads of 16 values, and `vllm` on a CPU has "
        "those of 32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512",
        "write `engine: torch` in the stages that sample, or take a model with other heads",
    )
    assert of_heads() == (([wanted], []) if claim == "exact" else ([], [wanted]))
    write("config.json", head_dim=64)(folder)
    assert of_heads() == ([], [])


def test_an_emulated_run_needs_no_model(folder: Path) -> None:
    shutil.rmtree(folder)
    spec = pipeline().to_dict() | {"engine": "emulated"}
    assert stage(spec, "roll")["model"] == "policy"
    assert told(folder, Pipeline.from_dict(spec)) == []
