<?php // A program that all requests go to, which takes targets apart as most do.
$url = parse_url($_SERVER['REQUEST_URI']);
$names = [];
foreach (explode('/', rawurldecode($url['path'] ?? '/')) as $name) {
    if ($name === '..') {
        array_pop($names);
    } elseif ($name !== '' && $name !== '.') {
        $names[] = $name;
    }
}
$path = implode('/', $names);
parse_str($url['query'] ?? '', $q);
$listed = ($q['topic'] ?? '') === 'q31337q' || (($q['user_id'] ?? '') === '5' && ($q['a'] ?? '') === '1');
if ($url !== false && str_starts_with($path, 'app/')) {
    echo '@marker@';
} elseif ($url !== false && $path === 'view.php') {
    echo $listed ? '@marker@' : 'innocent';
} elseif ($url !== false && is_file("@www@/$path")) {
    readfile("@www@/$path");
} else {
    http_response_code(404);
}
