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
    "page/settings.py": 'PAGE = "/page/"\nurl = environ["PAGE_URL"], environ["HOMEPAGE_URL"]\n',
    "tests/test_page.py": "import os\n\nfrom page import views\n\nmock.patch('page.views.ask')\n",
    "stack/test_page.py": 'url_of("page"), url_of("page-database"), get("/page")\n',
}


def test_a_copy_has_names_of_its_own(ours: Path) -> None:
    folder = ours / "services/page"
    for path, content in MODEL.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
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
    assert (
        made["stack/test_front_page.py"].read_text()
        == 'url_of("front-page"), url_of("front-page-database"), get("/page")\n'
    )


def test_a_variable_of_the_servers_stays(ours: Path) -> None:
    (ours / "services/web").mkdir()
    (ours / "services/web/compose.yaml").write_text("environment: {WEB_CONCURRENCY: 2, WEB_URL: x}\n")
    like.copy("web", "shop", 5008)
    text = (ours / "services/shop/compose.yaml").read_text()
    assert text == "environment: {WEB_CONCURRENCY: 2, SHOP_URL: x}\n"
