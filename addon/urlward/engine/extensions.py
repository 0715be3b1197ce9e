"""Extensions of files, which tell a file from a folder or a name with a dot in it."""

SCRIPTS = frozenset(
    {"asp", "aspx", "cfm", "cgi", "do", "fcgi", "jsp", "php", "php3", "php4", "php5", "php7", "php8"}
    | {"phtml", "pl", "py", "rb"}
)
"""Extensions of what an origin runs rather than serves; the path behind it is passed to the script."""
FILES = SCRIPTS | frozenset(
    {
        # pages
        "htm", "html", "mht", "mhtml", "php2", "php6", "phps", "shtm", "shtml", "stm", "txt", "xht",
        "xhtml", "xml",
        # images
        "apng", "avif", "bmp", "gif", "heic", "heif", "ico", "jfif", "jpe", "jpeg", "jpg", "png", "psd",
        "svg", "svgz", "tif", "tiff", "webp", "cr2", "heics", "heifs", "hif", "j2k", "jp2", "jpf", "jpx",
        "jxl", "jxr", "mng", "nef", "wbmp", "wmf",
        # films
        "3g2", "3gp", "asf", "avi", "divx", "f4v", "flv", "m2ts", "m3u8", "m4v", "mkv", "mov", "mp4", "mpe",
        "mpeg", "mpg", "mts", "ogv", "qt", "rm", "rmvb", "swf", "vob", "webm", "wmv", "3gpp", "m1v", "m2v",
        "m4s", "mk3d", "wmx", "wvx",
        # sound
        "aac", "aif", "aiff", "amr", "flac", "m4a", "mid", "midi", "mp3", "oga", "ogg", "opus", "wav",
        "wma", "m3u", "mka", "mp2", "mpga", "wax",
        # archives and programs
        "7z", "apk", "bz2", "cab", "deb", "dmg", "exe", "gz", "ipa", "iso", "jar", "lz", "msi", "rar",
        "rpm", "tar", "tbz", "tgz", "torrent", "txz", "war", "xz", "zip", "zst",
        # books and documents
        "cbr", "cbz", "azw", "azw3", "csv", "djvu", "doc", "docm", "docx", "epub", "mobi", "odp", "ods",
        "odt", "pdf", "pps", "ppt", "pptx", "ps", "rtf", "xls", "xlsm", "xlsx",
        # made by programs
        "ashx", "asmx", "axd", "cfc", "jspa", "jspx",
    }
)  # fmt: skip
"""Extensions of files. `john.doe`, `v1.2` and `commander.js` are more often names with other pages below."""


def is_file(path: str) -> bool:
    """Whether a path ends in the extension of a file."""
    return path.rpartition(".")[2].lower() in FILES
