"""scaffold/like.py: a copy of a service has names of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..scaffold import like
from .scaffolding import small_project


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return small_project(tmp_path / "ours", monkeypatch)


MODEL: dict[str, str | bytes] = {
    "compose.yaml": """\
# The page service.
services:
  page: &page
    image: ${STACK_CLONE:-local}/page:${STACK_FLAVOR:-dev}
    build:
      args:
        SERVICE: page
    ports:
      - ${PAGE_HOST:-127.0.0.1}:${PAGE_PORT:-5007}:8000
    environment:
      PAGE_URL: ${PAGE_URL:-postgresql://page@page-database:5432/page}
      HOMEPAGE_URL: http://homepage/page-x
    volumes: ["page-data:/page/data"]
    secrets: [page-database]
  page-migrate:
    <<: *page
    command: [python3, -m, page.migrate]
  page-worker:
    environment: {APPLICATION: python3 -m page, OTHER: celery -A page worker}
    healthcheck: {test: [CMD, python3, -m, page, health]}
""",
    "page/__init__.py": "import page\nfrom page.views import page as view\nfrom . import page as p\nx = click.page(page)\n",
    "page/logo.png": b"\xff\xfe page",
    "page/api.py": "import page.views\nimport page  # noqa\n\nx = page.views.ask(my.page.views, 'a page.')\n",
    "uploads/.gitkeep": "",
    ".coverage": "",
    "page/settings.py": 'PAGE = "/page/"\nurl = environ["PAGE_URL"], environ["HOMEPAGE_URL"]\n',
    "tests/test_page.py": "import os\n\nfrom page import views\n\nmock.patch('page.views.ask')\n",
    "stack/test_page.py": 'url_of("page"), url_of("page-database"), get("/page")\n',
}


def test_a_copy_has_names_of_its_own(ours: Path) -> None:
    folder = ours / "services/page"
    for path, content in MODEL.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    (ours / "libs/shared.py").write_text('environ["PAGE_URL"]\n')
    (folder / "shared.py").symlink_to("../../libs/shared.py")
    like.copy("page", "front-page", 5008)
    made = {
        str(path.relative_to(ours / "services/front-page")): path for path in (ours / "services/front-page").rglob("*")
    }
    compose = made["compose.yaml"].read_text()
    assert (
        compose
        == """\
# The front-page service.
services:
  front-page: &front-page
    image: ${STACK_CLONE:-local}/front-page:${STACK_FLAVOR:-dev}
    build:
      args:
        SERVICE: front-page
        PACKAGE: front_page
    ports:
      - ${FRONT_PAGE_HOST:-127.0.0.1}:${FRONT_PAGE_PORT:-5008}:8000
    environment:
      FRONT_PAGE_URL: ${FRONT_PAGE_URL:-postgresql://front-page@front-page-database:5432/front-page}
      HOMEPAGE_URL: http://homepage/front-page-x
    volumes: ["front-page-data:/page/data"]
    secrets: [front-page-database]
  front-page-migrate:
    <<: *front-page
    command: [python3, -m, front_page.migrate]
  front-page-worker:
    environment: {APPLICATION: python3 -m front_page, OTHER: celery -A front_page worker}
    healthcheck: {test: [CMD, python3, -m, front_page, health]}
"""
    )
    assert made["front_page/__init__.py"].read_text() == (
        "import front_page as page\nfrom front_page.views import page as view\nfrom . import page as p\nx = click.page(page)\n"
    )
    assert made["front_page/logo.png"].read_bytes() == MODEL["page/logo.png"]
    assert made["front_page/settings.py"].read_text() == (
        'PAGE = "/page/"\nurl = environ["FRONT_PAGE_URL"], environ["HOMEPAGE_URL"]\n'
    )
    assert made["tests/test_front_page.py"].read_text() == (
        "import os\n\nfrom front_page import views\n\nmock.patch('front_page.views.ask')\n"
    )
    assert made["front_page/api.py"].read_text() == (
        "import front_page.views\nimport front_page as page  # noqa\n\nx = front_page.views.ask(my.page.views, 'a page.')\n"
    )
    assert made["shared.py"].is_symlink()
    assert (ours / "libs/shared.py").read_text() == 'environ["PAGE_URL"]\n'
    assert made.keys() & {"uploads/.gitkeep", ".coverage"} == {"uploads/.gitkeep"}
    assert (
        made["stack/test_front_page.py"].read_text()
        == 'url_of("front-page"), url_of("front-page-database"), get("/page")\n'
    )


def test_another_service_whose_name_begins_with_the_models_stays(ours: Path) -> None:
    for name in ("page", "page-admin"):
        (ours / "services" / name).mkdir()
    (ours / "services/page/compose.yaml").write_text("depends_on: [page-admin, page-administration, page-data, page]\n")
    like.copy("page", "page-2", 5008)
    text = (ours / "services/page-2/compose.yaml").read_text()
    assert text == "depends_on: [page-admin, page-2-administration, page-2-data, page-2]\n"


def test_a_copy_whose_name_begins_with_the_models(ours: Path) -> None:
    """Its database was called page_2-2-database, which no URL may have as a host."""
    (ours / "services/page/page").mkdir(parents=True)
    (ours / "services/page/compose.yaml").write_text(
        "image: ${X}/page:${Y}\nSERVICE: page\nURL: http://u@page-database/page\ncommand: [python3, -m, page.migrate]\n"
    )
    like.copy("page", "page-2", 5008)
    assert (ours / "services/page-2/compose.yaml").read_text() == (
        "image: ${X}/page-2:${Y}\nSERVICE: page-2\n        PACKAGE: page_2\nURL: http://u@page-2-database/page-2\n"
        "command: [python3, -m, page_2.migrate]\n"
    )


def test_a_variable_of_the_servers_stays(ours: Path) -> None:
    (ours / "services/web").mkdir()
    (ours / "services/web/compose.yaml").write_text("environment: {WEB_CONCURRENCY: 2, WEB_URL: x}\n")
    like.copy("web", "shop", 5008)
    text = (ours / "services/shop/compose.yaml").read_text()
    assert text == "environment: {WEB_CONCURRENCY: 2, SHOP_URL: x}\n"


@pytest.mark.parametrize(("model", "line"), [("build", "BUILD_PACKAGES: x"), ("django", "DJANGO_SETTINGS_MODULE: x")])
def test_a_variable_that_is_not_the_services_stays(ours: Path, model: str, line: str) -> None:
    (ours / "services" / model).mkdir()
    (ours / "services" / model / "compose.yaml").write_text(line)
    like.copy(model, "shop", 5008)
    assert (ours / "services/shop/compose.yaml").read_text() == line


ADOPTED = """\
      args:
        SERVICE: blog
        PACKAGE: blog
        APPLICATION: "blog:create_app()"
        DISTRIBUTION: "blog==1.0"
    environment: {DATABASE_PORT: "${DATABASE_PORT:-5432}", SELF: "http://localhost:${BLOG_PORT:-5000}"}
    ports:
      - ${BLOG_HOST:-127.0.0.1}:${BLOG_PORT:-5000}:8000
      - 127.0.0.1:${BLOG_ADMIN_PORT:-5001}:8001
      APPLICATION: "python -m celery --app=blog worker"
"""


def test_a_copy_of_an_adopted_service(ours: Path) -> None:
    """What code asks importlib.metadata for and other services' ports stay; each port of its own is another one."""
    (ours / "services/blog/blog").mkdir(parents=True)
    (ours / "services/blog/compose.yaml").write_text(ADOPTED)
    like.copy("blog", "deck-2", 5002)
    assert (
        (ours / "services/deck-2/compose.yaml").read_text()
        == """\
      args:
        SERVICE: deck-2
        PACKAGE: deck_2
        APPLICATION: "deck_2:create_app()"
        DISTRIBUTION: "blog==1.0"
    environment: {DATABASE_PORT: "${DATABASE_PORT:-5432}", SELF: "http://localhost:${DECK_2_PORT:-5002}"}
    ports:
      - ${DECK_2_HOST:-127.0.0.1}:${DECK_2_PORT:-5002}:8000
      - 127.0.0.1:${DECK_2_ADMIN_PORT:-5003}:8001
      APPLICATION: "python -m celery --app=deck_2 worker"
"""
    )
