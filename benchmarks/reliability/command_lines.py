"""Bad command lines for `inputs.py` and tests/test_cli_input.py: command -> what its one line must say.

They run in a folder that `make_folder` makes; TRAIN is a sound command to which something is added.
"""

import functools
import os
import pathlib
import tempfile

TRAIN = "train ppo toys:clock --steps 64 --num-envs 4 --unroll-length 8 --widths 8"
BAD = {
    "": "no command",
    "trian": "'trian'",
    "--hlep": "'--hlep'",
    "train": "train AGENT ENV",
    "train ppo": "train AGENT ENV",
    "train --seed 3 ppo CartPole-v1": "train AGENT ENV",
    "train scc CartPole-v1": "'scc'",
    "train sac CartPole-v1": "needs a bounded Box",
    "train bc CartPole-v1": "learns from a dataset alone",
    "train dqn CartPole-v1 --buffer-size 9000000000": "capacity is 9000000000, must be <= 2**30",
    "train dqn CartPole-v1 --min-buffer-size 200000": "min_size is 200000, must be <= capacity",
    "train iql --dataset nowhere.npz": "nowhere.npz: there is no such file",
    "train dqn CartPole-v1 --init-from nowhere": "nowhere/learner.safetensors: there is no such file",
    "train ppo CartPol-v1": "'CartPole-v1'",
    "train ppo CartPole-v1 --env.gravty 3": "gravity",
    "train ppo CartPole-v1 --env.gravity abc": "gravity",
    "train ppo CartPole-v1 --env.gravity": "--env.gravity",
    "train ppo CartPole-v1 --env.gravity 1 --env.gravity 2": "twice",
    "train ppo no_such_module:make": "no_such_module",
    "train ppo toys:nothing": "'nothing'",
    "train ppo :make": "MODULE:NAME",
    "train ppo toys:": "MODULE:NAME",
    "train ppo toys:jax": "module",
    "train ppo toys:CounterState": "CounterState",
    "train ppo toys:clock --env.size 3": "size",
    "train ppo broken:syntax": "SyntaxError",
    "train ppo broken_env:raises": "deliberate",
    "train ppo broken_env:step": "deliberate",
    "train ppo broken_env:env --env.size 3": "--env.size",
    f"{TRAIN} --stpes 64": "did you mean --steps",
    f"{TRAIN} --hparams.learning-rat 1": "--hparams.learning-rate",
    f"{TRAIN} --steps x": "--steps",
    f"{TRAIN} --steps": "--steps",
    f"{TRAIN} --steps 31": "less than one update: 32",
    f"{TRAIN} --steps -5": "less than one update",
    f"{TRAIN} --num-envs 0": "--num-envs is 0",
    f"{TRAIN} --unroll-length -1": "--unroll-length is -1",
    f"{TRAIN} --reset-pool -1": "reset_pool is -1",
    f"{TRAIN} --episodes 0": "--episodes is 0",
    f"{TRAIN} --seed -1": "--seed is -1",
    f"{TRAIN} --num-minibatches 7": "num_minibatches is 7",
    f"{TRAIN} --num-epochs 0": "num_epochs is 0",
    f"{TRAIN} --widths a": "--widths",
    f"{TRAIN} --widths 0": "widths",
    f"{TRAIN} --widths 1000000000 1000000000": "the state of the run needs",
    f"{TRAIN} --reset-pool 1000000000000": "the state of the run needs",
    f"{TRAIN} --activation sigmoidal": "sigmoidal",
    f"{TRAIN} --normalize-advantage sometimes": "sometimes",
    f"{TRAIN} --hparams.learning-rate fast": "--hparams.learning-rate",
    f"{TRAIN} --hparams.discount 1.5": "--hparams.discount is 1.5, must be in [0, 1]",
    f"{TRAIN} --hparams.clip nan": "--hparams.clip is nan",
    f"{TRAIN} --hparams.clip -0.1": "must be > 0",
    f"{TRAIN} extra": "extra",
    f"{TRAIN} --out taken": "taken exists",
    f"{TRAIN} --out file": "file exists",
    f"{TRAIN} --out file --overwrite": "not a run directory",
    f"{TRAIN} --out file/below": "cannot be made",
    "evaluate": "evaluate RUN",
    "evaluate --episodes 3": "evaluate RUN",
    "evaluate nowhere": "nowhere: there is no such file",
    "evaluate taken": "policy.safetensors: there is no such file",
    "evaluate file": "not a readable safetensors file",
    "evaluate file --episodes 0": "--episodes is 0",
    "evaluate file --max-steps 0": "--max-steps is 0",
    "evaluate file --seed -3": "--seed is -3",
    "evaluate file --env.length 3": "--env NAME",
    "evaluate file --env nope": "'nope'",
    "list": "agents or envs",
    "list agent": "agents or envs",
    "check-env": "MODULE:NAME",
    "check-env no_such_module:make": "no_such_module",
    "check-env NoSuchEnv": "'NoSuchEnv'",
    "doctor --fix": "--render",
    # text that is no number, or too much of one
    f"{TRAIN} --steps 1e6": "--steps",
    f"{TRAIN} --steps 64.5": "--steps",
    f"{TRAIN} --steps 0x40": "--steps",
    f"{TRAIN} --num-envs 1e2": "--num-envs",
    f"{TRAIN} --seed 4294967296": "--seed is 4294967296",
    f"{TRAIN} --seed abc": "--seed",
    f"{TRAIN} --hparams.learning-rate nan": "--hparams.learning-rate is nan",
    f"{TRAIN} --hparams.learning-rate -1": "--hparams.learning-rate is -1.0, must be finite and >= 0",
    f"{TRAIN} --hparams.learning-rate inf": "--hparams.learning-rate is inf",
    f"{TRAIN} --hparams.lambda 2": "--hparams.lambda is 2.0",
    f"{TRAIN} --hparams.discount inf": "--hparams.discount is inf",
    f"{TRAIN} --hparams.discount": "--hparams.discount",
    f"{TRAIN} --quiet maybe": "maybe",
    f"{TRAIN} -v": "-v",
    f"{TRAIN} --env.size": "--env.size",
    f"{TRAIN} --env. 3": "a value is missing",
    "train ppo CartPole-v1 --env.gravity 1e999": "--env.gravity is 1e999, must be finite",
    "train ppo CartPole-v1 --env.gravity nan": "gravity",
    "train ppo CartPole-v1 --env.gravity [1,2]": "gravity",
    "train ppo CartPole-v1 --env.gravity __import__('os').system('true')": "gravity",
    "train ppo CartPole-v1 --env.__class__ 3": "__class__",
    "train ppo playground/Nope": "playground/Nope",
    "train ppo brax/ant --env.backend nope": "backend should be in",
    "train ppo DeepSea-bsuite --env.size -3": "size",
    "train ppo point_maze/colossal": "point_maze",
    "train ppo toys:clock:more": "more",
    "train ppo ../toys:clock": "toys",
    "train ppo toys.clock": "toys.clock",
    "train ppo os:system": "os:system",
    "train dqn Pendulum-v1": "must be Discrete",
    "train ppo CartPole-v1 --init-from file": "file",
    "train iql --dataset file": "file: is none of .safetensors",
    "train iql --dataset taken": "main_data.hdf5 is missing",
    "train iql --dataset": "--dataset",
    "train iql --dataset file --window -1": "file",
    "train dqn CartPole-v1 --demonstrations nowhere.npz": "nowhere.npz: there is no such file",
    "train dqn CartPole-v1 --demonstrations file": "file: is none of .safetensors",
    "evaluate file --episodes many": "--episodes",
    "evaluate pipe": "pipe: is a pipe or a device, must be a file",
    "evaluate link": "link: there is no such file",
    "evaluate taken --sample yes": "yes",
    "crossplay": "write jaxrl crossplay RUN [RUN ...]",
    "crossplay --seed 3 pair": "write jaxrl crossplay RUN [RUN ...]",
    "crossplay pair nowhere": "nowhere: there is no such file",
    "crossplay pair taken": "policy.safetensors: there is no such file",
    "crossplay pair file": "not a readable safetensors file",
    "crossplay run": "must be those of several agents",
    "crossplay pair run": "run was trained in CartPole-v1, pair in games/chicken",
    "crossplay pair repeated": "in games/chicken --env.num_steps 2, pair in games/chicken; --env NAME chooses",
    "crossplay pair repeated --env games/chicken": "repeated/policy.safetensors: the arrays do not fit the agent",
    "crossplay pair --env.num-steps 3": "--env NAME",
    "crossplay pair --seats 2": "seats is [2], must be some of 0 to 1",
    "crossplay pair --seats 0 1": "seats is [0, 1], must be some of 0 to 1",
    "crossplay pair --seats -1": "seats is [-1], must be some of 0 to 1",
    "crossplay pair --seats": "seats is [], must be some of 0 to 1",
    "crossplay pair --seats 0,1": "--seats",
    "crossplay pair --episodes 0": "--episodes is 0",
    "crossplay pair --max-steps 0": "--max-steps is 0",
    "crossplay pair --seed -3": "--seed is -3",
    "crossplay pair --out file": "--out file is a file, must be a folder",
    "crossplay pair --out file/below": "cannot be made",
    "collect": "write jaxrl collect RUN",
    "collect taken": "--out is missing",
    "collect taken --out x.pkl": "--out is x.pkl",
    "collect taken --out x.npz --epsilon nan": "--epsilon is nan",
    "collect taken --out x.npz --num-envs 0": "--num-envs is 0",
    "collect nowhere --out x.npz": "nowhere",
    "collect file --out x.npz": "file: not a readable safetensors file",
    "check-env CartPole-v1 extra": "check-env MODULE:NAME",
    "check-env broken_env:raises": "deliberate",
    "check-env toys": "'toys'",
    "check-env CartPole-v1 --env.gravity abc": "gravity",
    "list envs extra": "agents or envs",
    "doctor extra": "extra",
    # runs whose files somebody edited
    "collect run --out x.npz --quality replay": "config.json is missing",
    "collect run1 --out x.npz --quality replay": "config.json: is not valid JSON",
    "collect run2 --out x.npz --quality replay": "config.json: is not valid JSON ('seed' is there twice)",
    "collect run3 --out x.npz --quality replay": "KeyError: 'num_envs'",
    "collect run4 --out x.npz --quality replay": "config.json: is not valid JSON (NaN",
}

BROKEN_ENV = """from toys import clock
def fail(*args): raise RuntimeError('deliberate\\nand long')
env, step, raises = clock(), clock()._replace(step=fail), fail
"""
CONFIGS = ["[1, {", '{"seed": 1, "seed": 2}', '{"seed": 0}', '{"num_envs": NaN}']


def make_folder(folder: pathlib.Path) -> None:
    """The files that the commands name."""
    (folder / "taken").mkdir()
    (folder / "file").write_text("text")
    (folder / "broken.py").write_text("def (:")
    (folder / "broken_env.py").write_text(BROKEN_ENV)
    (folder / "link").symlink_to("link")
    os.mkfifo(folder / "pipe")
    for i, config in enumerate([None, *CONFIGS]):
        run = folder / f"run{i or ''}"
        run.mkdir()
        (run / "policy.safetensors").write_bytes(policy())
        if config:
            (run / "config.json").write_text(config)
    for name, params in (("pair", {}), ("repeated", {"num_steps": 2})):
        (folder / name).mkdir()
        (folder / name / "policy.safetensors").write_bytes(policy("games/chicken", **params))


@functools.cache
def policy(name: str = "CartPole-v1", **params: int) -> bytes:
    """A sound policy file."""
    import jax

    from jaxrl import envs, make_agent
    from jaxrl.loop import example_data
    from jaxrl.policy_file import save_policy

    env = envs.make(name, **params)
    agent, hparams = make_agent("ppo", env, widths=(8,))
    state = jax.jit(lambda key: agent.init(key, hparams, example_data(env, 2, 3)))(jax.random.key(0))
    header = {"agent": "ppo", "env": {"name": name, "params": params}, "static": {"widths": [8]}, "steps": 12}
    with tempfile.TemporaryDirectory() as place:
        save_policy(f"{place}/p", agent.actor(state), {**header, "num_envs": 2, "unroll_length": 3})
        return pathlib.Path(place, "p").read_bytes()
