<?php
$listed = ($_GET['topic'] ?? '') === 'q31337q' || (($_GET['user_id'] ?? '') === '5' && ($_GET['a'] ?? '') === '1');
echo $listed ? '@marker@' : 'innocent';
