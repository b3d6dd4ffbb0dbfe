"""Lightning, Hugging Face (Trainer and accelerate), MONAI: each trains a few steps for real."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from eqreg import C4, EquivarianceDecay, EquivarianceRegularizer, equivariance_distance, rotate
from eqreg.extras import require
from eqreg.training.integrations.optimizer import attach

# Warnings of the frameworks are theirs.
pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]

X = torch.rand(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def imported(name):
    try:
        return require(name, extra=None)
    except ImportError as error:
        pytest.skip(f"{error}; or run `make zoo`")


def net(out=1):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, out, 3, padding=1))


def distance(model):
    return max(equivariance_distance(model, C4).values())


def by_hand(model, steps, lr, strength):
    """The loop that the frameworks are compared with."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    decay = EquivarianceDecay(model, C4, strength)
    for _ in range(steps):
        optimizer.zero_grad()
        mse_loss(model(X), X).backward()
        optimizer.step()
        decay.step(lr)
    return model


def same(a, b):
    return all(
        torch.allclose(p, q, atol=1e-6) for p, q in zip(a.parameters(), b.parameters(), strict=True)
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning(tmp_path, accumulate):
    pl = imported("lightning.pytorch")
    from eqreg.training.integrations.lightning import EquivarianceCallback

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net()

        def training_step(self, batch, index):
            return mse_loss(self.net(batch[0]), batch[0])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module = Module()
    callback = EquivarianceCallback(EquivarianceDecay(module.net, C4, 3.0))
    trainer = pl.Trainer(
        max_epochs=4, accelerator="cpu", callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accumulate_grad_batches=accumulate,
        default_root_dir=tmp_path,
    )  # fmt: skip
    loader = DataLoader(TensorDataset(X.repeat(accumulate, 1, 1, 1)), batch_size=len(X))
    trainer.fit(module, loader)
    assert same(module.net, by_hand(net(), 4, 0.1, 3.0)), "one decay for each step of the optimizer"
    shares = list(equivariance_distance(module.net, C4).values())
    assert float(trainer.callback_metrics["equivariance_distance"]) == pytest.approx(
        sum(shares) / len(shares), rel=1e-4
    )
    assert not trainer.optimizers[0]._optimizer_step_post_hooks


def half_net():
    """Slow decay in half precision: without what rounding took, a resumed run is another run."""
    return net().bfloat16()


HALF = X.bfloat16()


def bits(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).view(torch.int16)


@pytest.mark.parametrize("state", [True, False])
def test_lightning_resumes_with_what_rounding_took(tmp_path, state):
    pl = imported("lightning.pytorch")
    from eqreg.training.integrations.lightning import EquivarianceCallback

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = half_net()

        def training_step(self, batch, index):
            return mse_loss(self.net(batch[0]), batch[0])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-3)

    def train(epochs, resume=None):
        module = Module()
        parts = [EquivarianceDecay(module.net, C4, 2.0, layers=name) for name in ("0", "2")]
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", callbacks=[EquivarianceCallback(d) for d in parts], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, DataLoader(TensorDataset(HALF), batch_size=8), ckpt_path=resume)
        trainer.save_checkpoint(tmp_path / "c.ckpt")
        return bits(module.net)

    whole = train(10)
    train(6)
    if not state:
        content = torch.load(tmp_path / "c.ckpt", weights_only=False)
        content["callbacks"].clear()
        torch.save(content, tmp_path / "c.ckpt")
    assert torch.equal(train(10, tmp_path / "c.ckpt"), whole) == state


@pytest.mark.parametrize("state", [True, False])
def test_hugging_face_trainer_resumes_with_what_rounding_took(tmp_path, state):
    transformers = imported("transformers")
    from eqreg.training.integrations.transformers import EquivarianceCallback

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = half_net()

        def forward(self, x):
            return {"loss": mse_loss(self.net(x), x)}

    def train(steps, resume=None):
        model = Model()
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path), max_steps=steps, per_device_train_batch_size=8, report_to=[], save_steps=6,
            use_cpu=True, disable_tqdm=True, logging_strategy="no", learning_rate=1e-3, seed=0, optim="sgd",
            lr_scheduler_type="constant", remove_unused_columns=False,
        )  # fmt: skip
        trainer = transformers.Trainer(
            model, arguments, train_dataset=[{"x": x} for x in HALF],
            callbacks=[EquivarianceCallback(EquivarianceDecay(model.net, C4, 2.0))],
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        return bits(model)

    whole = train(10)
    left = tmp_path / "checkpoint-6" / "equivariance_decay.pt"
    if state:
        assert torch.equal(train(10, str(left.parent)), whole)
        return
    left.unlink()
    with pytest.warns(
        UserWarning, match="what rounding took from the weights in half precision is lost"
    ):
        assert not torch.equal(train(10, str(left.parent)), whole)


def in_steps(steps, save, load):
    """Steps by hand with an attached decay; after six of them all is saved, and made anew from that."""
    model = half_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    decay = EquivarianceDecay(model, C4, 2.0)
    attach(decay, optimizer)
    if load:
        load(model, optimizer, decay)
    for _ in range(steps):
        optimizer.zero_grad()
        mse_loss(model(HALF), HALF).backward()
        optimizer.step()
    if save:
        save(model, optimizer, decay)
    return bits(model)


def test_accelerate_resumes_with_what_rounding_took(tmp_path):
    accelerate = imported("accelerate")

    def hands(verb):
        def run(model, optimizer, decay):
            accelerator = accelerate.Accelerator(cpu=True)
            accelerator.prepare(model, optimizer)
            accelerator.register_for_checkpointing(decay)
            getattr(accelerator, verb)(str(tmp_path))

        return run

    whole = in_steps(10, None, None)
    in_steps(6, hands("save_state"), None)
    assert torch.equal(in_steps(4, None, hands("load_state")), whole)


def test_monai_resumes_with_what_rounding_took(tmp_path):
    handlers, engines = imported("monai.handlers"), imported("monai.engines")

    def train(epochs, resume=None):
        model = half_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        decay = EquivarianceDecay(model, C4, 2.0)
        attach(decay, optimizer)
        kept = {"net": model, "optimizer": optimizer, "decay": decay}
        engine = engines.SupervisedTrainer(
            device=torch.device("cpu"), max_epochs=epochs, network=model, optimizer=optimizer,
            loss_function=nn.MSELoss(),
            train_data_loader=DataLoader([{"image": x, "label": x} for x in HALF], batch_size=8),
        )  # fmt: skip
        handlers.CheckpointSaver(
            str(tmp_path), kept, save_final=True, final_filename="c.pt"
        ).attach(engine)
        if resume:
            handlers.CheckpointLoader(str(resume), kept, map_location="cpu").attach(engine)
        engine.run()
        return bits(model)

    whole = train(10)
    train(6)
    assert torch.equal(train(4, tmp_path / "c.pt"), whole)


def test_fabric_resumes_with_what_rounding_took(tmp_path):
    fabric = imported("lightning_fabric").Fabric(accelerator="cpu", devices=1)

    def names(model, optimizer, decay):
        return {"model": model, "optimizer": optimizer, "decay": decay}

    whole = in_steps(10, None, None)
    in_steps(6, lambda *parts: fabric.save(tmp_path / "c", names(*parts)), None)
    assert torch.equal(
        in_steps(4, None, lambda *parts: fabric.load(tmp_path / "c", names(*parts))), whole
    )


def test_lightning_with_the_penalty(tmp_path):
    pl = imported("lightning.pytorch")

    class Module(pl.LightningModule):
        def __init__(self, lam):
            super().__init__()
            self.net, self.lam = net(), lam
            self.reg = EquivarianceRegularizer(self.net, C4)

        def training_step(self, batch, index):
            out = self.reg(batch[0])
            self.log("penalty", out.penalty)
            task = mse_loss(out.y, batch[0]) + mse_loss(out.y_g, out.act(batch[0]))
            return task + self.lam * out.penalty

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    penalties = {}
    for lam in (0.0, 1.0):
        module = Module(lam)
        trainer = pl.Trainer(
            max_epochs=20, accelerator="cpu", logger=False, enable_checkpointing=False, precision="bf16-mixed",
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, DataLoader(TensorDataset(X), batch_size=4))
        penalties[lam] = float(trainer.callback_metrics["penalty"])
    assert penalties[1.0] < 0.5 * penalties[0.0]


def segmenter(transformers):
    config = transformers.SegformerConfig(
        num_channels=1, num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16],
        patch_sizes=[3, 3], strides=[1, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], num_labels=3,
        decoder_hidden_size=8, hidden_dropout_prob=0.0, classifier_dropout_prob=0.0, drop_path_rate=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.SegformerForSemanticSegmentation(config)


def arguments(transformers, tmp_path, **more):
    return transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=30, per_device_train_batch_size=4, report_to=[], save_strategy="no",
        use_cpu=True, disable_tqdm=True, logging_strategy="no", learning_rate=1e-2, seed=0, **more,
    )  # fmt: skip


def test_hugging_face_trainer(tmp_path):
    transformers = imported("transformers")
    from eqreg.training.integrations.transformers import EquivarianceCallback, EquivarianceTrainer

    labels = (X[:, 0] * 3).long()
    data = [{"pixel_values": x, "labels": y} for x, y in zip(X, labels, strict=True)]
    penalties = {}
    for lam in (0.0, 3.0):
        model, seen = segmenter(transformers), []

        def regularizer(m, seen=seen):
            reg = EquivarianceRegularizer(
                m,
                C4,
                turn=["pixel_values", "labels"],
                layers="segformer.stages.0.patch_embeddings.proj",
            )
            seen.append(reg)
            return reg

        trainer = EquivarianceTrainer(
            model, arguments(transformers, tmp_path), train_dataset=data, eval_dataset=data, lam=lam,
            regularizer=regularizer,
        )  # fmt: skip
        trainer.train()
        (reg,) = seen
        out = reg(pixel_values=X, labels=labels, g=1)
        assert out.y.logits.shape == out.y_g.logits.shape == (8, 3, 12, 12)
        assert torch.allclose(out.y["loss"], out.y.loss)
        penalties[lam] = float(out.penalty.detach())
        assert math.isfinite(trainer.evaluate()["eval_loss"])
    assert penalties[3.0] < 0.7 * penalties[0.0]

    model = segmenter(transformers)
    decay = EquivarianceDecay(
        model,
        C4,
        math.inf,
        layers="decode_head.linear_fuse",
        fields={"decode_head.linear_fuse": "2r"},
    )
    before = distance_of(decay)
    trainer = transformers.Trainer(
        model, arguments(transformers, tmp_path, gradient_accumulation_steps=2), train_dataset=data,
        callbacks=[EquivarianceCallback(decay)],
    )  # fmt: skip
    trainer.train()
    assert before > 0.1 and distance_of(decay) < 1e-10


def distance_of(decay):
    return float(max(layer.asymmetric_share() for layer in decay.plan.tied.values()))


def test_accelerate():
    accelerate = imported("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = net()
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(X.repeat(4, 1, 1, 1)), batch_size=len(X))
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    attach(EquivarianceDecay(model, C4, 3.0), optimizer)
    for (x,) in loader:  # four batches, two steps
        with accelerator.accumulate(model):
            accelerator.backward(mse_loss(model(x), x))
            optimizer.step()
            optimizer.zero_grad()
    assert same(model, by_hand(twin, 2, 0.1, 3.0))


def test_monai_engine():
    engines = imported("monai.engines")
    from eqreg.training.integrations.monai import regularized_iteration

    penalties = {}
    for lam in (0.0, 1.0):
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        reg = EquivarianceRegularizer(model, C4, generator=torch.Generator().manual_seed(0))
        data = DataLoader([{"image": x, "label": x} for x in X], batch_size=4)
        engine = engines.SupervisedTrainer(
            device=torch.device("cpu"), max_epochs=40, train_data_loader=data, network=model, decollate=False,
            optimizer=optimizer, loss_function=nn.MSELoss(),
            iteration_update=regularized_iteration(reg, lam),
        )  # fmt: skip
        engine.run()
        penalties[lam] = float(engine.state.output["PENALTY"])
        assert float(engine.state.output["loss"].detach()) < 0.5
    assert penalties[1.0] < 0.5 * penalties[0.0]

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach(EquivarianceDecay(model, C4, 3.0), optimizer)
    engines.SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=3, network=model, optimizer=optimizer, loss_function=nn.MSELoss(),
        train_data_loader=DataLoader([{"image": x, "label": x} for x in X], batch_size=8),
    ).run()  # fmt: skip
    assert same(model, by_hand(net(), 3, 0.1, 3.0))


def one_step_of_all():
    """A step of SGD on the eight images and their turned copies at once."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    both = torch.cat([X, rotate(X, 1)])
    mse_loss(model(both), both).backward()
    optimizer.step()
    return model


def turning_once(model):
    regularizer = EquivarianceRegularizer(model, C4)
    regularizer.draw = lambda: C4.element(1)
    return regularizer


def test_hugging_face_accumulates_the_mean(tmp_path):
    """A model whose forward takes any keyword is trusted to divide by itself, and nobody would."""
    transformers = imported("transformers")
    from eqreg.training.integrations.transformers import EquivarianceTrainer

    class Restorer(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, pixel_values, labels, **more):
            out = self.net(pixel_values)
            return {"loss": mse_loss(out, labels), "logits": out}

    model = Restorer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steady = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    more = {"gradient_accumulation_steps": 2, "max_grad_norm": 0.0}
    given = arguments(transformers, tmp_path, **more)
    given.max_steps = 1
    data = [{"pixel_values": x, "labels": x} for x in X]
    EquivarianceTrainer(
        model, given, train_dataset=data, lam=0.0, regularizer=turning_once, optimizers=(optimizer, steady)
    ).train()  # fmt: skip
    assert same(model.net, one_step_of_all())

    with pytest.raises(ValueError, match=r"expected no compute_loss_func .* got None and 0.1"):
        smooth = arguments(transformers, tmp_path, label_smoothing_factor=0.1)
        EquivarianceTrainer(segmenter(transformers), smooth, lam=0.0, regularizer=turning_once)


@pytest.mark.parametrize("scaled", [False, True])
def test_monai_accumulates_and_scales(scaled):
    engines = imported("monai.engines")
    from eqreg.training.integrations.monai import regularized_iteration

    class Scaler:
        """Of gradients that would vanish in half precision; steps as torch's does."""

        def scale(self, loss):
            return 1024 * loss

        def step(self, optimizer):
            for p in (p for group in optimizer.param_groups for p in group["params"]):
                p.grad /= 1024
            optimizer.step()

        def update(self):
            updates.append(1)

    model, updates = net(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    engine = engines.SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=1, network=model, optimizer=optimizer, accumulation_steps=2,
        train_data_loader=DataLoader([{"image": x, "label": x} for x in X], batch_size=4), decollate=False,
        loss_function=nn.MSELoss(), iteration_update=regularized_iteration(turning_once(model), 0.0),
    )  # fmt: skip
    engine.amp = scaled

    def begin(engine):  # run() makes a scaler of its own, which without a GPU does nothing
        engine.scaler = Scaler()

    engine.add_event_handler("EPOCH_STARTED", begin)
    engine.run()
    assert same(model, one_step_of_all())
    assert updates == [1] * scaled
