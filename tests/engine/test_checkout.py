import subprocess

from tfaug.engine import checkout


def test_the_commit_is_that_of_the_checkout_or_none(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=b", *arguments], check=True)

    source = tmp_path / "tfaug/engine/checkout.py"
    source.parent.mkdir(parents=True)
    source.write_text("")
    monkeypatch.setattr(checkout, "__file__", str(source))
    assert checkout.commit() is None
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    commit = checkout.commit()
    assert len(commit) == 12
    picture = tmp_path / "docs/results/order.png"
    picture.parent.mkdir(parents=True)
    picture.write_text("one")
    git("add", ".")
    git("commit", "-q", "-m", "two")
    picture.write_text("another")
    commit = checkout.commit()
    assert len(commit) == 12
    source.write_text("changed")
    assert checkout.commit() == f"{commit}-dirty"
