"""What programs have of their own: data routes, ways to topics, and pictures in sizes."""

import re
from typing import Any

import pytest

from engine.support import matcher
from rows import each_row
from urlward.engine import data_routes, pictures, topics, words
from urlward.engine.verdict import PASS

DATA = [
    # Next.js, Nuxt, SvelteKit, Qwik, React Router, Gatsby, Vike, to whoever follows a link
    ("/a/noext", "/_next/data/Z1_b-x/a/noext.json?x=1"),
    ("/a/noext", "/x/../_next/data/Z1/a/noext%2ejson/"),
    ("/b/noext", "/b/_next/data/Z1/noext.json"),
    ("/q?id=5", "/_next/data/Z1/q.json?id=5"),
    ("/index", "/_next/data/Z1/index/index.json"),
    ("/index/noext", "/_next/data/Z1/index/index/noext.json"),
    ("/a/noext", "/a/noext.txt?_rsc=1x2"),
    ("/q?id=5", "/q/index.txt?id=5&_rsc=1x2"),
    ("/noext", "/noext/__next._full.txt"),
    ("/noext", "/noext/_payload.json?Z1"),
    ("/noext", "/noext/_payload.js"),
    ("/a/noext", "/b/../_nuxt/static/16069/a/noext/payload.js"),
    ("/b/noext", "/b/_nuxt/static/16069/noext/payload.js?x"),
    ("/noext", "/_nuxt/static/16069/noext/payload.js"),
    ("/q?id=5", "/q/index.pageContext.json?id=5"),
    ("/noext", "/noext/__data.json?x-sveltekit-invalidated=01"),
    ("/a.html", "/a.html__data.json"),
    ("/noext", "/noext/q-data.json"),
    ("/noext", "/noext.data"),
    ("/noext", "/noext/_.data"),
    ("/noext", "/noext.rsc"),
    ("/noext", "/page-data/noext/page-data.json"),
    # NodeBB, Flarum, PeerTube, Lemmy, where a link is followed
    ("/w/iD5-x", "/api/v1/videos/iD5-x"),
    ("/post/5", "/api/v3/post?x=1&id=5"),
    ("/post/5", "/b/../api/post/5?fields=id"),
    ("/b/share/Ab1/x/a.jpg", "/b/api/public/dl/Ab1/x/a.jpg?inline=true"),
    ("/share/Ab1", "/api/public/share/Ab1"),
    ("/gallery/Ab-1", "/api/v2/Album::photos?album_id=Ab-1&page=1"),
    ("/b/gallery/Ab-1", "/b/api/v2/Album?album_id=Ab-1"),
    ("/topic/5/a-title", "/api/topic/5/a-title?_=1"),
    ("/forum/user/a", "/forum/api/user/a"),
    ("/d/5-a-title", "/api/discussions/5-a-title?bySlug=true&page%5Bnear%5D=0"),
    # What has its data by the page's own path behind `/api` (NodeBB, Szurubooru, kemono), or by its number
    # (Mastodon, Pixelfed, Pleroma); Mastodon's profiles
    ("/x/user/1/post/5", "/api/v1/x/user/1/post/5"),
    ("/b/category/a", "/b/api/category/a"),
    ("/@a.b/112233", "/api/v1/statuses/112233"),
    ("/@a@o.test/112233", "/api/v1/statuses/112233"),
    ("/p/a/112233", "/api/v1/statuses/112233?x"),
    ("/i/web/post/112233", "/api/v1/statuses/112233"),
    ("/notice/9bCdEfGhIjKlMnOpQr", "/api/v1/statuses/9bCdEfGhIjKlMnOpQr"),
    ("/@a@o.test", "/api/v1/accounts/lookup?x=1&acct=a%40o.test"),
    ("/@a.b", "/@a.b.rss"),
    ("/c/a/videos", "/api/v1/video-channels/a/videos?start=0"),
    ("/a/a@o.test", "/api/v1/accounts/a@o.test"),
    ("/c/a", "/api/v3/community?name=a"),
    ("/c/a@o.test", "/api/v3/post/list?sort=Hot&community_name=a%40o.test"),
    ("/u/a", "/api/v3/user?username=a&limit=20"),
    ("/u/a", "/api/users/a?bySlug=true"),
    ("/b/p/a", "/b/p/a/export/html"),
    ("/p/a", "/p/a/timeslider"),
    # What is in a share, of Nextcloud and ownCloud
    ("/s/Ab1", "/s/Ab1/download"),
    ("/c/s/Ab1", "/c/index.php/s/Ab1/download/a.jpg?x"),
    ("/c/index.php/s/Ab1", "/c/index.php/s/Ab1/preview"),
    ("/s/Ab1", "/index.php/apps/files_sharing/publicpreview/Ab1?file=/a.jpg"),
    ("/index.php/s/Ab1", "/public.php/dav/files/Ab1/x/a.jpg"),
    ("/c/s/Ab1", "/c/public.php/dav/files/Ab1"),
    ("/s/Ab1", "/remote.php/dav/public-files/Ab1/a.jpg"),
    # Files in repositories (Gitea, Forgejo, GitLab, GitHub, cgit), pastes, and posts on Telegram
    ("/a/b/src/branch/main/x.jpg", "/a/b/raw/branch/main/x.jpg"),
    ("/a/b/src/commit/0f/x.jpg", "/a/b/media/commit/0f/x.jpg"),
    ("/a/b/-/blob/main/x.jpg", "/a/b/-/raw/main/x.jpg?inline=false"),
    ("/a/b/blob/main/x.jpg", "/a/b/raw/main/x.jpg"),
    ("/a/b/blob/main/x.jpg", "/a/b/raw/refs/heads/main/x.jpg"),
    ("/cgit/a/tree/x.jpg", "/cgit/a/plain/x.jpg?h=main"),
    ("/b/a.git/tree/x.jpg", "/b/a.git/plain/x.jpg"),
    ("/Ab3dE5gH", "/raw/Ab3dE5gH"),
    ("/abuwojepup", "/raw/abuwojepup"),
    ("/b/view/0a1b2c3d", "/b/view/raw/0a1b2c3d"),
    ("/a_name/55", "/s/a_name/55"),
    ("/a_name/55", "/s/a_name/55/"),
    # Discourse
    ("/u/a.b", "/u/a.b.json"),
    ("/c/a/5", "/c/a/5/l/latest.json?filter=x"),
    # Shopify, where a shop shows a product in a window of its list
    ("/products/a-b", "/products/a-b.js"),
    ("/x/products/a-b", "/x/products/a-b.json"),
]
TOPICS = [
    # Discourse, where a link is followed, at a later post, and its feed
    ("/t/a-title/5", "/t/5.json?track_visit=true&forceLoad=true"),
    ("/t/topic/5", "/t/5/17.json"),
    ("/t/a-title/5/17", "/t/5/17.json"),
    ("/f/t/a-title/5", "/f/t/a-title/5/17?u=x"),
    ("/t/a-title/5", "/t/a-title/5.rss"),
    # Boards' last and first posts of a thread
    ("/b/res/12.html", "/b/res/12+50.html"),
    ("/b/res/12-a-title.html", "/b/res/12-a-title%2B50.html?x"),
    ("/b/res/12.html", "/b/res/12-100.html"),
    # A post's place in a topic (NodeBB, Flarum)
    ("/b/topic/5/a-title", "/b/topic/5/a-title/20"),
    ("/topic/5/a-title", "/api/topic/5/a-title/20?_=1"),
    ("/d/5-a-title", "/d/5-a-title/20"),
    ("/b/thread-5.html", "/b/thread-5-post-9.html"),  # MyBB
    ("/discussion/5/a-title", "/discussion/5/a-title/p1"),  # Vanilla
    # Posts in others' frames and by their number (Mastodon, Pixelfed), films likewise (PeerTube), and
    # pictures with words behind their number (Moebooru)
    ("/@a/112233", "/@a/112233/embed"),
    ("/@a/112233", "/users/a/statuses/112233"),
    # The same with a slash at the end, or the number in other letters
    ("/@a/112233", "/@a/112233/embed/"),
    ("/w/kkGMgK9ZtnKfYAgnEtQxbv", "/videos/embed/9C9DE5E8-0A1E-484A-B099-E80766180A6D/"),
    ("/w/9c9de5e8-0a1e-484a-b099-e80766180a6d", "/w/9C9DE5E8-0A1E-484A-B099-E80766180A6D"),
    ("/watch?v=iD5_-abcdEf", "/embed/iD5_-abcdEf/"),
    ("/discussion/5/a-title", "/discussion/5/a-title/p1/"),
    ("/a/B5c", "/a/B5c/embed?x"),
    ("/watch?v=iD5_-abcdEf", "/embed/iD5_-abcdEf?autoplay=1"),
    ("/watch?v=iD5_-abcdEf", "/shorts/iD5_-abcdEf"),
    ("/view_video.php?viewkey=ab0123456789f", "/embed/ab0123456789f"),
    ("/file/Ab3dE5gH", "/embed/Ab3dE5gH"),
    ("/video/x5y", "/embed/video/x5y"),
    (f"/file/d/{'aB3-' * 7}", f"/file/d/{'aB3-' * 7}/preview"),
    (f"/document/d/{'aB3-' * 7}", f"/document/u/1/d/{'aB3-' * 7}/edit?usp=sharing"),
    (f"/drive/folders/{'aB3-' * 7}", f"/drive/u/0/folders/{'aB3-' * 7}"),
    ("/w/kkGMgK9ZtnKfYAgnEtQxbv", "/videos/watch/9c9de5e8-0a1e-484a-b099-e80766180a6d"),
    ("/w/111111114Ay6byqtQtQyDP", "/w/00000000-0000-4000-8000-000000000001?start=5s"),
    ("/w/kkGMgK9ZtnKfYAgnEtQxbv", "/api/v1/videos/9c9de5e8-0a1e-484a-b099-e80766180a6d"),
    ("/videos/watch/9c9de5e8-0a1e-484a-b099-e80766180a6d", "/videos/embed/kkGMgK9ZtnKfYAgnEtQxbv"),
    ("/w/9c9de5e8-0a1e-484a-b099-e80766180a6d", "/w/kkGMgK9ZtnKfYAgnEtQxbv"),
    ("/videos/watch/iD5-x", "/api/v1/videos/iD5-x"),
    ("/b/post/show/55", "/b/post/show/55/a_b"),
    ("/thread-5-1-1.html", "/thread-5-1-12.html"),  # Discuz
    ("/thread-5-2-1.html", "/thread-5-2-1.html?mobile=no"),
    ("/thread-5-1-3.html", "/thread-5-1-1.html"),
    ("/thread-5-1-3.html", "/thread-5-1-2.html"),
    ("/b/thread-5-1-1.html", "/b/forum.php?tid=5&mod=viewthread"),
    ("/b/index.php?topic=5.0", "/b/index.php?topic=5.msg17"),  # SMF
    ("/b/index.php?topic=5.0", "/b/index.php/x?topic=5.msg17"),
    ("/b/thread-5-2-1.html", "/b/forum.php/x?mod=viewthread&tid=5&page=2"),  # Discuz
    ("/?topic=5.0", "/index.php?PHPSESSID=x&topic=5.msg17;topicseen"),
    ("/index.php?topic=5.0", "/?board=2;topic=5.new"),
    ("/index.php/topic,5.0.html", "/index.php/topic,5.msg17.html?x"),
    ("/thread-5-2-3.html", "/forum.php?mod=viewthread&tid=5&page=2"),
    ("/forum.php?mod=viewthread&tid=5", "/thread-5-1-2.html"),
    ("/forum.php?mod=viewthread&tid=5&extra=page%3D2", "/thread-5-1-2.html"),
]
PICTURES = [
    # Next.js, Vercel, Amplify, Netlify, Astro, Nuxt, Cloudflare, Drupal: a picture in another size
    ("/i/a.jpg", "/_next/image?url=%2Fi%2Fa.jpg&w=640&q=75"),
    ("/i/a.jpg", "/b/_next/image/?w=1&u%72l=/i/a.jpg"),
    ("/i/a.jpg", "/_next/image?url=%2Fx%2F..%2Fi%2F%2561.jpg%23x&w=1"),
    ("/i/b%20c.jpg", "/_next/image?url=/i/b+c.jpg%20&w=1"),
    ("/i/a.jpg", "/_next/image?url=https%3A%2F%2Fwww.p.test%3A443%2Fi%2Fa.jpg%3Fx"),
    ("/i/a.jpg", "/_next/image?url=https%3A%2F%2Fp.test%2Fi%2F%0Aa.jpg"),
    ("/q?id=5", "/_next/image?url=%2Fq%3Fid%3D5"),
    ("/i/a.jpg", "/_vercel/image?url=/i/a.jpg"),
    ("/i/a.jpg", "/_amplify/image?url=/i/a.jpg"),
    ("/i/a.jpg", "/.netlify/images?url=i/a.jpg"),
    ("/i/a.jpg", "/_image?w=1&href=/i/a.jpg"),
    ("/i/a.jpg", "/_ipx/_/i/a.jpg"),
    ("/i/a.jpg", "/_ipx/s_200x300&f_webp/i%5Ca.jpg"),
    ("/b/i/a.jpg", "/b/_ipx/w_200/i/a.jpg"),
    ("/i/a.jpg", "/_ipx/w_200/https://p.test/i/a.jpg"),
    ("/i/a.jpg", "/cdn-cgi/image/width=80,quality=75/i/a.jpg"),
    ("/s/files/i/a.jpg", "/s/files/styles/large/public/i/a.jpg?itok=x"),
    ("/s/files/i/a.jpg", "/s/files/styles/large/public/i/a.jpg.webp"),
    ("/i/a.jpg", "/cdn-cgi/image/width=80/https://p.test//i/./a.jpg"),
    # Shopify, Cloudinary, Chevereto, vichan, TinyIB, Kusaba X, 4chan, Coppermine, NextGEN, Gelbooru,
    # Mastodon, Ghost, Magento, WordPress, MediaWiki, Discourse, Piwigo
    ("/cdn/shop/files/a_b.jpg", "/cdn/shop/files/a_b_300x300.jpg?v=1683744744"),
    ("/cdn/shop/products/a.png", "/cdn/shop/products/a_x480_crop_center@2x.png"),
    ("/s/files/1/1405/0664/products/a.jpg", "/s/files/1/1405/0664/products/a_grande.progressive.jpg"),
    ("/x/image/upload/v12/a.jpg", "/x/image/upload/c_fill,w_300/f_auto/v12/a.jpg"),
    ("/images/2024/05/a.b.jpg", "/images/2024/05/a.b.md.jpg"),
    ("/a.jpeg", "/a.th.jpeg"),
    ("/b/src/1700000000123.jpg", "/b/thumb/1700000000123.jpg"),
    ("/b/src/17000-1.png", "/b/thumb/17000-1s.png"),
    ("/b/src/17000-1.png", "/b/thumb/17000-1c.png"),
    ("/b/1700000000123.jpg", "/b/1700000000123s.jpg"),
    ("/g/albums/userpics/1/a.jpg", "/g/albums/userpics/1/normal_a.jpg"),
    ("/g/albums/a_b.jpg", "/g/albums/thumb_a_b.jpg"),
    ("/wp-content/gallery/x/a.jpg", "/wp-content/gallery/x/thumbs/thumbs_a.jpg"),
    ("/images/1/0f.jpg", "/thumbnails/1/thumbnail_0f.jpg"),
    ("/images/1/0f.jpg", "//samples/1/sample_0f.jpg?5"),
    (
        "/system/media_attachments/files/1/original/0f.png",
        "/system/media_attachments/files/1/small/0f.png",
    ),
    ("/b/content/images/2024/a.jpg", "/b/content/images/size/w600/2024/a.jpg"),
    ("/content/images/a.png", "/content/images/size/w600h400/format/webp/a.png"),
    ("/media/catalog/product/a/b/ab.jpg", f"/media/catalog/product/cache/{'0f' * 16}/a/b/ab.jpg"),
    ("/wp-content/uploads/2024/05/a.jpg", "/wp-content/uploads/2024/05/a-300x200.jpg"),
    ("/wp-content/uploads/a-1.jpg", "/wp-content/uploads/a%2D1-scaled.jpg?x"),
    ("/b/app/uploads/a-scaled.jpg", "/b/app/uploads/a-1024x768.jpg.webp"),
    ("/images/a/ab/A_b.jpg", "/images/thumb/a/ab/A_b.jpg/300px-A_b.jpg"),
    ("/w/images/a/ab/A%C3%A0.tif", "/w/images/thumb/a/ab/A%C3%A0.tif/lossy-page1-300px-A%C3%A0.tif.jpg"),
    ("/uploads/default/original/1X/0f.jpeg", "/uploads/default/optimized/1X/0f_2_690x388.jpeg"),
    ("/upload/2024/05/01/a-b.jpg", "/_data/i/upload/2024/05/01/a-b-me.jpg"),
    ("/b/galleries/a.jpg", "/b/_data/i/galleries/a-cu_e260x180.jpg"),
    ("/b/upload/a-b.jpg", "/b/i.php?/upload/a-b-me.jpg"),
    ("/upload/a%20b.jpg", "/i.php?upload/a%20b-cu_e260x180.jpg&x"),
    ("/upload/a.jpg", "/i.php/upload/a-sq.jpg"),
    # OpenCart, Craft, Shopware, Kirby, Serendipity
    ("/uploads/x/a_b.jpg", "/uploads/x/_1200xAUTO_crop_center-center_82_none/a_b.jpg?v=1"),
    ("/upload/iblock/0f0/a_b.jpg", "/upload/resize_cache/iblock/0f0/300_300_1/a_b.jpg"),
    ("/img/b/R29/AVv/s1600/a.jpg", "/img/b/R29/AVv/s72-c/a.jpg"),
    ("/-x/s4000/a.jpg", "/-x/w640-h480-p-k-no-nu/a.jpg"),
    ("/media/0f/17/1700/a_b.jpg", "/thumbnail/0f/17/1700/a_b_400x400.jpg"),
    ("/b/image/catalog/x/a_1.jpg", "/b/image/cache/catalog/x/a_1-250x250.jpg"),
    ("/media/pages/x/0f-17/a.jpg", "/media/pages/x/0f-17/a-800x.jpg"),
    ("/media/pages/0f-17/a-b.png", "/media/pages/0f-17/a-b-200x300-crop-top-left-q80.png"),
    ("/uploads/a.b.jpg", "/uploads/a.b.serendipityThumb.jpg"),
    ("/data/attachment/forum/a.png", "/data/attachment/forum/a.png.thumb.jpg"),  # Discuz
    # MyBB, Zenphoto, Pixelfed, Gallery 3, 4images, Phoca; boards' and boorus' small pictures, which may
    # be in another format
    ("/b/attachment.php?aid=5", "/b/attachment.php?thumbnail=5"),
    ("/g/albums/x/a_b.jpg", "/g/cache/x/a_b_100_w100_h100_cw100_ch100_thumb.jpg?cached=1"),
    ("/g/albums/x/a%20b.jpg", "/g/zp-core/full-image.php?a=x&i=a%20b.jpg&dsp=protected"),
    ("/albums/x/y/a.jpg", "/zp-core/i.php?s=595&i=a.jpg&a=x%2Fy"),
    ("/storage/m/_v2/5/0f-1/a.jpg", "/storage/m/_v2/5/0f-1/a_thumb.jpg"),
    ("/b/src/1700000000123.jpg", "/b/thumb/1700000000123.png"),
    ("/b/src/1700000000123-1.webm", "/b/thumb/1700000000123-1s.jpg"),
    ("/b/1700000000123.png", "/b/1700000000123s.jpg"),
    ("/b/src/1700000000123.png", "/b/cat/1700000000123s.jpg"),
    (f"/file_store/{'0f' * 32}.png", f"/file_store/thumb/{'0f' * 32}.jpg"),
    (f"/images/src/{'0f' * 20}.png", f"/images/thumb/{'0f' * 20}.webp"),
    ("/g/var/albums/x/a.jpg", "/g/var/resizes/x/a.jpg?m=1"),
    ("/data/media/5/a.jpg", "/data/thumbnails/5/a.jpg"),
    ("/images/phocagallery/x/a.jpg", "/images/phocagallery/x/thumbs/phoca_thumb_l_a.jpg"),
    ("/b/image/1700/00/1700000000123.gif", "/b/thumb/1700/00/1700000000123s.jpg"),
    (f"/file/{'0f' * 32}.webp", f"/file/thumb/{'0f' * 32}.jpg"),
    (f"/.media/{'0f' * 32}.mp4", f"/.media/t_{'0f' * 32}"),
    (f"/.media/{'0f' * 16}-imagejpeg.jpg", f"/.media/t_{'0f' * 16}-imagejpeg"),
    (f"/images/1/{'0f' * 16}.png", f"/thumbnails/1/thumbnail_{'0f' * 16}.jpg"),
    (f"/images/1/{'0f' * 16}.png", f"/samples/1/sample_{'0f' * 16}.jpg"),
    (f"/files/1/original/{'0f' * 8}.webp", f"/files/1/small/{'0f' * 8}.png"),
    (f"/data/original/0f/0f/{'0f' * 16}.png", f"/data/360x360/0f/0f/{'0f' * 16}.jpg"),
    (f"/original/0f/0f/{'0f' * 16}.png", f"/sample/0f/0f/sample-{'0f' * 16}.jpg"),
    (f"/data/image/0f/0f/{'0f' * 16}.png", f"/data/preview/0f/0f/{'0f' * 16}.jpg"),
    (f"/data/{'0f' * 16}.png", f"/data/sample/{'0f' * 16}.jpg"),
    (f"/data/posts/5_{'0f' * 8}.png", f"/data/generated-thumbnails/5_{'0f' * 8}.jpg"),
    (f"/uploads/original/0f/0f/{'0f' * 14}.jpg", f"/uploads/small2x/0f/0f/{'0f' * 14}.jpeg"),
]
PICTURES += [
    # sigal, fgallery, thumbsup, llgal, CarrierWave, MediaGoblin, Shimmie, Danbooru, easy-thumbnails; and the
    # same in another format beside it
    ("/g/Album/a.jpg", "/g/Album/thumbnails/a.jpg"),
    ("/g/imgs/a.jpg", "/g/thumbs/a.jpg"),
    ("/media/large/Album/a.jpg", "/media/thumbs/Album/a.jpg"),
    ("/g/a.jpg", "/g/.llgal/thumb_a.jpg"),
    ("/uploads/photo/file/5/a.jpg", "/uploads/photo/file/5/thumb_a.jpg"),
    ("/mgoblin_media/media_entries/5/a.jpg", "/mgoblin_media/media_entries/5/a.medium.jpg"),
    ("/b/image/5.jpg", "/b/thumb/5.jpg"),
    (f"/original/0f/0f/{'0f' * 16}.png", f"/original/0f/0f/__a_b__{'0f' * 16}.png"),
    (f"/original/0f/0f/__a_b__{'0f' * 16}.png", f"/original/0f/0f/__a_b_c__{'0f' * 16}.png"),
    (f"/original/0f/0f/__a_b__{'0f' * 16}.png", f"/sample/0f/0f/__a__sample-{'0f' * 16}.jpg"),
    ("/media/x/a.jpg", "/media/x/a.jpg.300x200_q85_crop.jpg"),
    ("/wp-content/uploads/a.jpg", "/wp-content/uploads/a.jpg.webp"),
    ("/x/a.JPEG", "/x/a.JPEG.avif?v=1"),
]
BY_NUMBER = [
    # Kernel Video Sharing in others' frames, and Moebooru, whose words change
    ("/videos/55/a-title/", "/embed/55/"),
    (f"/file/d/55{'aB3-' * 7}/view", f"/file/u/2/d/55{'aB3-' * 7}/preview"),
    (f"/drive/u/1/folders/55{'aB3-' * 7}", f"/drive/folders/55{'aB3-' * 7}"),
    ("/post/show/55/a_b", "/post/show/55"),
    ("/post/show/55/a_b", "/post/show/55/a_b_c"),
]
EXAMPLES = [*DATA, *TOPICS, *PICTURES, *BY_NUMBER]
"""What is listed, and what is asked for."""


@each_row(("page", "target"), EXAMPLES)
def test_a_page_is_blocked_by_what_its_program_has_for_it(page: str, target: str) -> None:
    assert matcher(f"http://p.test{page}").check("p.test", target).blocked
    other = page.replace("55", "56") if (page, target) in BY_NUMBER else page[:-1]
    assert matcher(f"http://p.test{other}").check("p.test", target) == PASS


def found() -> list[object]:
    asked = [target.partition("?") for _, target in EXAMPLES]
    return [
        (data_routes.page_of_data(path, query), topics.topics(path, query), [*pictures.pictures(path, query)])
        for path, _, query in asked
    ] + [topics.page_by_number(page) for page, _ in EXAMPLES]


def test_each_row_has_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found()
    for module, name in ((data_routes, "_ROUTES"), (topics, "_WAYS"), (topics, "_OWN"), (pictures, "_SIZES")):
        rows = getattr(module, name)
        for number, row in enumerate(getattr(module, name[1:], rows)):
            monkeypatch.setattr(module, name, rows[:number] + rows[number + 1 :])
            assert found() != whole, row
        monkeypatch.setattr(module, name, rows)
    services = [pictures._service(target.partition("?")[0]) for _, target in PICTURES]
    numbers = {service.lastindex for service in services if service}
    assert numbers == set(range(1, len(pictures.SERVICES) + 1))


@each_row("module", [data_routes, topics, pictures])
def test_words_are_told_together_as_they_are_alone(module: Any) -> None:
    alone = [re.compile(word).search for word in module.TELLING]
    together = words.search_for(module.TELLING)
    for path in dict.fromkeys(target.partition("?")[0] for example in EXAMPLES for target in example):
        assert bool(together(path)) is any(word(path) for word in alone), path


def test_another_page_than_that_of_the_data_passes() -> None:
    root = matcher("http://p.test/")
    for target in (
        "_root.data",
        "_.data",
        ".data",
        "__data.json",
        "_next/data/Z1/index.json",
        "_nuxt/static/16069/payload.js",
        "index.pageContext.json",
        "index.txt?_rsc=1",
    ):
        assert root.check("p.test", f"/{target}").blocked
    for target in (
        "_next/data/Z1",
        "_next/data/index.json",
        "page-data.json",
        "x.json",
        "index.json",
        "index.txt",
    ):
        assert root.check("p.test", f"/{target}") == PASS
    page = matcher("http://p.test/a")
    for target in (
        "a.json",
        "a.txt",
        "a.txt?x",
        "b/_payload.json",
        "a/payload.js",
        "_nuxt/a/payload.js",
        "_nuxt/static/16069/a/state.js",
        "a/pageContext.json",
        "a/data.json",
        "_next/data/Z1/b.json",
        "a.html",
        "api/a",
        "api/discussions/a",
        "api/v1/videos/a",
        "api/v3/post?id=a",
        "api/public/a",
        "api/v2/Album",
        "api/v2/Albums?album_id=a",
        "api/v1/a",
        "api/v3/community?id=a",
        "api/v3/post/list?name=a",
        "api/users/a",
        "p/a/export",
        "@a.html",
        "raw/a",
        "s/a",
        "s/a/downloads",
        "public.php/dav/files/b",
        "x/raw/a",
    ):
        assert page.check("p.test", f"/{target}") == PASS


def test_another_page_than_that_of_the_number_passes() -> None:
    page = matcher(
        "http://p.test/guide/intro",
        "http://p.test/highlights",
        "http://p.test/name/5",
        "http://p.test/s/Ab1",
        "http://p.test/@a/112233",
        "http://p.test/videos/5/a-title/",
        "http://p.test/post/show/5/a",
        "http://p.test/index.php/a/b",
        "http://p.test/w/kkGMgK9ZtnKfYAgnEtQxbv",
        "http://p.test/x/user/1",
        "http://p.test/a/tree/x",
        f"http://p.test/file/d/{'aB3-' * 7}/view",
        f"http://p.test/c/d/{'aB3-' * 7}",
        "http://p.test/auth/oauth2",
        "http://p.test/docs/v1",
        "http://p.test/john5",
        "http://p.test/file/overview",
        "http://p.test/file/Ab3dE5gHi",
        "http://p.test/s/photos",
        "http://p.test/p/steel",
        "http://p.test/images/tree/1.jpg",
        "http://p.test/Results",
        "http://p.test/japanese",
    )
    for target in (
        "api/guide/intro",
        "raw/highlights",
        "x/s/name/5",
        "s/name/6",
        "s/Ab1/x",
        "s/Ab12/download",
        "apps/files_sharing/publicpreview/Ab",
        "public.php/dav/files/Ab12",
        "@a/112234",
        "@a/11223/embed",
        "api/v1/statuses/11223",
        "api/v1/accounts/112233",
        "videos/6/a-title/",
        "embed/55",
        "embed/a-title",
        "embed/guide/intro/x",
        "x/embed/guide/intro",
        "post/show/55",
        "a/c",
        "b",
        "w/00000000-0000-4000-8000-000000000001",
        "videos/embed/9c9de5e8-0a1e-484a-b099-e80766180a6e",
        "api/v1/x/user/2",
        "api/x/user",
        "a/plain/y",
        "a/plain",
        f"file/d/{'aB3-' * 7}x/preview",
        f"file/d/{'aB3-' * 7}/comments",
        f"c/d/{'aB3-' * 7}/edit",
        "api/auth/oauth2",
        "api/docs/v1",
        "docs/v1/embed",
        "john5/embed",
        "embed/overview",
        "live/Ab3dE5gHi",
        "embed/guide/intro",
        "s/photos/download",
        "p/steel/export/germany",
        "images/plain/1.jpg",
        "raw/Results",
        "raw/japanese",
    ):
        assert page.check("p.test", f"/{target}") == PASS, target


@pytest.mark.timeout(60)
def test_a_long_name_is_looked_at_once() -> None:
    for name in ("0" * (1 << 21), "A" * (1 << 21), "0A" * (1 << 20)):
        assert topics.topics(f"/a/{name}/x/embed", "") == []


def test_another_topic_passes() -> None:
    topic = matcher("http://p.test/t/a-title/5", "http://p.test/t/title/6")
    for target in (
        "t/6.json",
        "t/5.html",
        "t/6",
        "t/5/17",
        "t/a-title/55/5",
        "t/b-title/5",
        "t/title/6/17",
        "t/a-title/5/a",
    ):
        assert topic.check("p.test", f"/{target}") == PASS
    board = matcher(
        "http://p.test/b/res/12.html",
        "http://p.test/b/src/1700000000123.jpg",
        "http://p.test/b/src/a.jpg",
        f"http://p.test/original/{'0f' * 16}.png",
        "http://p.test/attachment.php?aid=5",
        "http://p.test/topic/5",
        "http://p.test/thread-5.html",
        "http://p.test/index.php?topic=7.0",
        "http://p.test/thread-6-1-2.html",
        "http://p.test/topic/5/a",
        "http://p.test/d/5",
        "http://p.test/d/5-a",
    )
    for target in (
        "b/res/12+5.html",
        "b/res/12-1000.html",
        "b/res/112+50.html",
        "b/res/1+50.html",
        "b/res/13-100.html",
        "b/12+50.html",
        "b/res/12+50.json",
        "b/thumb/1700000000124.png",
        "b/thumb/1700000000123.html",
        "b/thumb/1700000000123-1.png",
        "b/thumb/a.png",
        "c/thumb/1700000000123.png",
        f"360x360/{'0f' * 15}00.jpg",
        f"360x300/{'0f' * 16}.jpg",
        f"sample/{'0f' * 16}.jpg",
        "thread-5-page-2.html",
        "thread-55-post-9.html",
        "thread-6-2-1.html",
        "thread-6-11-1.html",
        "thread-66-1-1.html",
        "thread-6-1-2.htm",
        "thread-6-1.html",
        "forum.php?mod=viewthread&tid=66",
        "forum.php?mod=viewthread&tid=6&page=2",
        "forum.php?mod=viewthread",
        "forum.php?tid=6",
        "index.php?topic=77.msg5",
        "index.php?topic=7.15",
        "index.php?topic=7.message",
        "index.php?topic=7.msg",
        "index.php?subtopic=7.new",
        "index.php?x=topic=7.new",
        "x/forum.php?mod=viewthread&tid=6",
        "topic/5/a/b",
        "topic/5/a/2/3",
        "x/topic/5/a/2",
        "topic/5/2",
        "d/5/2",
        "d/5-ab/2",
        "attachment.php?thumbnail=6",
        "attachment.php?thumbnail=55",
        "attachment.php?pid=5",
        "attachment.php?thumbnail=",
    ):
        assert board.check("p.test", f"/{target}") == PASS


def test_another_picture_passes() -> None:
    picture = matcher("http://p.test/a.jpg", "http://p.test/", "http://p.test/image/a.jpg")
    for target in (
        "_next/image?url=/b.jpg",
        "_next/image?url=",
        "_next/image?u=/a.jpg",
        "_next/images?url=/a.jpg",
        "image?url=/a.jpg",
        "share?url=/a.jpg",
        "_ipx/a.jpg",
        "b/_ipx/w_200/a.jpg",
        "b/cdn-cgi/image/w=1/a.jpg",
        "cdn-cgi/image/a.jpg",
        "_ipx/_/a.jpg.x",
        "styles/large/public/a.jpg",
        "cdn-cgi/image/w=1/p.test/a.jpg",
        "cdn-cgi/image/w=1/https://o.test/a.jpg",
        "_next/image?url=https://o.test/a.jpg",
        "_next/image?url=https://[/a.jpg",
        "a-300x200.jpg",
        "uploads/a-300x200.jpg",
        "a_300x300.jpg",
        "size/w600/a.jpg",
        "thumb/300px-a.jpg",
        "thumb/a.jpg/px",
        "thumb/as.jpg",
        "thumb_b.jpg",
        "x/thumb_a.jpg",
        "thumbs/b.jpg",
        "x/thumbs/a.jpg",
        "thumbs/a.jpg/x",
        "thumb/a.jpg",
        "thumb_a.html",
        "a.jpg.html",
        "a.jpg.webp/x",
        "a.webp",
        "b.jpg.webp",
        "a.jpg.300x200.jpg",
        "a.jpg.300x200_.html",
        "samples/sample_a.jpg",
        "small/a.jpg",
        "as.jpg",
        "cache/0f/a.jpg",
        "i.php",
        "i.php?/b/a-me.jpg",
        "i.php?/a.jpg",
        "x/i.php?/a-me.jpg",
        "ii.php?/a-me.jpg",
        "s320/a.jpg",
        "resize_cache/a.jpg",
        "media/a-800x.jpg",
        "cache/a_1.jpg",
        "var/thumb/a.jpg",
        "phoca_thumb_l_a.jpg",
        "storage/a_thumb.jpg",
        "zp-core/i.php?a=&i=b.jpg",
        "zp-core/i.php?i=a.jpg",
    ):
        assert picture.check("p.test", f"/{target}") == PASS
    assert matcher("http://p.test/read.html").check("p.test", "/read.md.html") == PASS
    page = matcher("http://p.test/gallery/x")
    for target in ("300px-a.jpg", "300px-x.html", "300px-x", "9px-thumbnail.php"):
        assert page.check("p.test", f"/gallery/thumb/x/{target}") == PASS
    picture = matcher("http://p.test/wp-content/uploads/a.jpg", "http://p.test/images/a/ab/A.jpg")
    for target in (
        "wp-content/uploads/a-300x.jpg",
        "wp-content/uploads/a-1-300x200.jpg",
        "wp-content/uploads/a-300x200.png",
        "wp-content/uploads/b/a-300x200.jpg",
        "wp-content/uploads/a-2.jpg",
        "wp-content/uploads/a.mid.jpg",
        "images/thumb/a/ab/A.jpg/300px-B.jpg",
        "wp-content/uploads/a.md",
        "x/image/upload/w_300/a.jpg",
        "wp-content/uploads/-300x200.jpg",
        "images/thumb/a/ab/A.jpg.png/300px-A.jpg.png",
        "images/thumb/300px-A.jpg",
    ):
        assert picture.check("p.test", f"/{target}") == PASS


def test_a_picture_of_another_host_is_none_of_this_one() -> None:
    found = matcher("http://a.p.test/a.jpg", "http://p.test/b.jpg subdomains")
    for host, target, blocked in (
        ("a.p.test", "/a.jpg", True),
        ("a.p.test", "/b.jpg", True),
        ("b.p.test", "/a.jpg", False),
    ):
        assert found.check("a.p.test", f"/_next/image?url=https://{host}{target}").blocked is blocked
    below = matcher("http://p.test/b.jpg subdomains")
    assert below.check("a.p.test", "/_next/image?url=https://b.p.test/b.jpg").blocked
    assert below.check("a.p.test", "/_next/image?url=https://q.test/b.jpg") == PASS
    assert (
        not matcher("http://p.test/a.jpg", "@@http://p.test/_ipx/*").check("p.test", "/_ipx/_/a.jpg").blocked
    )
